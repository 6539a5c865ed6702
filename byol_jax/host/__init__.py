import sys

if sys.platform == "win32":
    raise ImportError(
        "byol_jax needs signals, file locks and other parts of POSIX, which Windows does not have: "
        "install and run it in WSL 2 (learn.microsoft.com/windows/wsl)."
    )
