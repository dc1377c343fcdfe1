// The guest's program, once for each VM, at the PA where the VM's IPA_RAM leads.
        .section .guest.a, "aw"
        .incbin "guest.bin"
        .section .guest.b, "aw"
        .incbin "guest.bin"
