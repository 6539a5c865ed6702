"""The table of objectives: what ``objective.name`` may be."""

from byol_jax.objectives import barlow_twins, byol, contract, infonce, simclr, simsiam, vicreg

OBJECTIVES: dict[str, contract.Objective] = {
    "byol": byol.BYOL,
    "byol_no_predictor": byol.BYOL_NO_PREDICTOR,
    "infonce": infonce.INFONCE,
    "simclr": simclr.SIMCLR,
    "simsiam": simsiam.SIMSIAM,
    "barlow_twins": barlow_twins.BARLOW_TWINS,
    "vicreg": vicreg.VICREG,
}
