//go:build linux

#include "textflag.h"

// func cloneSyscall(trap, a1, a2, a3, a4, a5, child uintptr) (r1, errno uintptr)
//
// The child starts with an empty stack of its own, runs live(child) and never returns.
TEXT ·cloneSyscall(SB), NOSPLIT|NOFRAME, $0-72
	MOVQ trap+0(FP), AX
	MOVQ a1+8(FP), DI
	MOVQ a2+16(FP), SI
	MOVQ a3+24(FP), DX
	MOVQ a4+32(FP), R10
	MOVQ a5+40(FP), R8
	MOVQ child+48(FP), R12
	MOVQ $0, R9
	SYSCALL
	TESTQ AX, AX
	JNE  parent
	SUBQ $32, SP
	MOVQ R12, 0(SP)
	MOVQ $·live(SB), CX
	CALL CX
	INT  $3
parent:
	CMPQ AX, $0xfffffffffffff001
	JLS  ok
	NEGQ AX
	MOVQ $-1, r1+56(FP)
	MOVQ AX, errno+64(FP)
	RET
ok:
	MOVQ AX, r1+56(FP)
	MOVQ $0, errno+64(FP)
	RET

// func rawSyscall(trap, a1, a2, a3, a4, a5, a6 uintptr) (r1, errno uintptr)
TEXT ·rawSyscall(SB), NOSPLIT|NOFRAME, $0-72
	MOVQ trap+0(FP), AX
	MOVQ a1+8(FP), DI
	MOVQ a2+16(FP), SI
	MOVQ a3+24(FP), DX
	MOVQ a4+32(FP), R10
	MOVQ a5+40(FP), R8
	MOVQ a6+48(FP), R9
	SYSCALL
	CMPQ AX, $0xfffffffffffff001
	JLS  done
	NEGQ AX
	MOVQ $-1, r1+56(FP)
	MOVQ AX, errno+64(FP)
	RET
done:
	MOVQ AX, r1+56(FP)
	MOVQ $0, errno+64(FP)
	RET
