"""The table of objectives: what ``objective.name`` may be."""

from typing import Any

from byol_jax.objectives import (
    barlow_twins,
    byol,
    contract,
    dino,
    infonce,
    moco_v2,
    moco_v3,
    raft,
    simclr,
    simsiam,
    ssl_hsic,
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
    "dino": dino.DINO,
    "ssl_hsic": ssl_hsic.SSL_HSIC,
    "raft": raft.RAFT,
}


def keeps_target(section: Any) -> bool:
    """Whether a run has a target network beside the online one.

    Args:
      section: ``objective`` of its config; an objective from outside counts as BYOL.
    """
    row = OBJECTIVES.get(section.name)
    kind = section.target or (row.targets[0] if row else "ema")
    return contract.TARGETS.get(kind, True)
