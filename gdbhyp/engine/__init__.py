"""The architecture over a reader: translate, AT and PAR_EL1, whole tables."""
