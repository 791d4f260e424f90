"""What RAW files are called."""

# Suffixes looked for in folders; a file that is named outright is tried whatever it is called.
_ENDINGS = (
    "3fr ari arw bay cap cr2 cr3 crw dcr dcs dng erf fff gpr iiq k25 kdc mdc mef mos mrw nef nrw orf pef ptx pxn r3d "
    "raf raw rw2 rwl rwz sr2 srf srw x3f"
)
RAW_SUFFIXES = frozenset(f".{ending}" for ending in _ENDINGS.split())
