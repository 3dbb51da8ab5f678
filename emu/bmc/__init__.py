"""The management controller behind the KCS interface: what IPMI messages mean.

IPMI v2.0, the chapters that each file names. Its time is the machine's virtual time; nothing here knows the host.
"""
