bits 16
org 0
cli
hlt
