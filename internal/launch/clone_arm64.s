//go:build linux

#include "textflag.h"

// func cloneSyscall(trap, a1, a2, a3, a4, a5, child uintptr) (r1, errno uintptr)
//
// The child starts with an empty stack of its own, runs live(child) and never returns.
TEXT ·cloneSyscall(SB), NOSPLIT|NOFRAME, $0-72
	MOVD trap+0(FP), R8
	MOVD a1+8(FP), R0
	MOVD a2+16(FP), R1
	MOVD a3+24(FP), R2
	MOVD a4+32(FP), R3
	MOVD a5+40(FP), R4
	MOVD child+48(FP), R19
	MOVD $0, R5
	SVC
	CBNZ R0, parent
	MOVD RSP, R9
	SUB  $32, R9
	MOVD R9, RSP
	MOVD R19, 8(RSP)
	MOVD $·live(SB), R9
	CALL (R9)
	BRK
parent:
	CMN  $4095, R0
	BCC  ok
	NEG  R0, R4
	MOVD $-1, R0
	MOVD R0, r1+56(FP)
	MOVD R4, errno+64(FP)
	RET
ok:
	MOVD R0, r1+56(FP)
	MOVD ZR, errno+64(FP)
	RET

// func rawSyscall(trap, a1, a2, a3, a4, a5, a6 uintptr) (r1, errno uintptr)
TEXT ·rawSyscall(SB), NOSPLIT|NOFRAME, $0-72
	MOVD trap+0(FP), R8
	MOVD a1+8(FP), R0
	MOVD a2+16(FP), R1
	MOVD a3+24(FP), R2
	MOVD a4+32(FP), R3
	MOVD a5+40(FP), R4
	MOVD a6+48(FP), R5
	SVC
	CMN  $4095, R0
	BCC  done
	NEG  R0, R4
	MOVD $-1, R0
	MOVD R0, r1+56(FP)
	MOVD R4, errno+64(FP)
	RET
done:
	MOVD R0, r1+56(FP)
	MOVD ZR, errno+64(FP)
	RET
