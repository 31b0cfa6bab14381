"""PASCAL VOC 2012, alone or with SBD's masks."""
