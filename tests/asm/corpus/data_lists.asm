; Lists of data: repetition, sizes within a list, parentheses.
        db      33, (44), %(44), %('XX','YY'), ('A'), %('BB')
        dw      5 dup (1, 2), 3
        db      2 dup ('ab', 2 dup (7)), 3 dup 4
        dw      4 dup (0), %(1, 2)
        db      6 dup (33, 34), 35
        db      7 dup (99)
        db      2 dup dword (1, word 5, 6)
        dw      byte (3, 44)
        dw      3 dup (0xcc, 4 dup byte ('PQR'), 9), 0xabcd
        dd      (5 + 3) dup (0xaaaa, 0, 0xbbbbbb), here
here:   dq      (here - $$) * 2, 2 dup (here)
[warning -zeroing]
blank:  db      ?, 1, ?, ?, 2
        dd      blank, ?, blank
        dw      2 dup (?, ?, blank)
        db      12 dup (?), 1
        times   3 db ?
