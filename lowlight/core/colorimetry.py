"""Constants of colour that several floors need, as plain numbers."""

# IEC 61966-2-1: linear sRGB to CIE XYZ, D65 white.
SRGB_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
