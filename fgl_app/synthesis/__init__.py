"""Synthesis of image sets as resumable jobs, in this process or on Ray workers."""
