"""The table of objectives: what ``objective.name`` may be."""

from byol_jax.objectives import (
    barlow_twins,
    byol,
    contract,
    infonce,
    moco_v2,
    moco_v3,
    raft,
    simclr,
    simsiam,
    swav,
    vicreg,
)

OBJECTIVES: dict[str, contract.Objective] = {
    "byol": byol.BYOL,
    "byol_no_predictor": byol.BYOL_NO_PREDICTOR,
    "infonce": infonce.INFONCE,
    "simclr": simclr.SIMCLR,
    "moco_v2": moco_v2.MOCO_V2,
    "moco_v3": moco_v3.MOCO_V3,
    "simsiam": simsiam.SIMSIAM,
    "barlow_twins": barlow_twins.BARLOW_TWINS,
    "vicreg": vicreg.VICREG,
    "swav": swav.SWAV,
    "raft": raft.RAFT,
}
