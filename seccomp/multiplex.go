//go:build linux

package seccomp

import "slices"

// multiplexer is a call that stands for many: its first argument says which one, and the arguments of that are in memory, where no filter
// sees them (socketcall(2), ipc(2)).
type multiplexer struct {
	name  string
	mask  uint64 // of the first argument: the upper half of ipc's is a version
	calls map[uint64]string
}

func multiplexers() []multiplexer {
	return []multiplexer{
		{"socketcall", 1<<32 - 1, map[uint64]string{1: "socket", 2: "bind", 3: "connect", 4: "listen", 5: "accept", 6: "getsockname", 7: "getpeername",
			8: "socketpair", 9: "send", 10: "recv", 11: "sendto", 12: "recvfrom", 13: "shutdown", 14: "setsockopt", 15: "getsockopt",
			16: "sendmsg", 17: "recvmsg", 18: "accept4", 19: "recvmmsg", 20: "sendmmsg"}},
		{"ipc", 1<<16 - 1, map[uint64]string{1: "semop", 2: "semget", 3: "semctl", 4: "semtimedop", 11: "msgsnd", 12: "msgrcv", 13: "msgget", 14: "msgctl",
			21: "shmat", 22: "shmdt", 23: "shmget", 24: "shmctl"}},
	}
}

// multiplex lets the rules for a call hold also where it is made through a multiplexer: else who may not call socket calls
// socketcall.
func (l *lowering) multiplex() {
	for _, m := range multiplexers() {
		k, _ := findCall(m.name)
		if nr := k.number(l.arch); nr >= 0 {
			l.through(m, k, uint32(nr))
		}
	}
}

func (l *lowering) through(m multiplexer, k *call, nr uint32) {
	own := l.rules[nr] // what the policy says of the multiplexer itself
	var before []ruleFor
	for n := range uint64(32) {
		rules := l.named(m.calls[n])
		if len(rules) == 0 {
			continue
		}
		b := l.blind(rules)
		if len(own) > 0 && b.action.Allows() {
			continue
		}
		b.when = []match{Condition{Arg: 0, Op: MaskedEqual, Mask: m.mask, Value: n}.resolve(k, l.arch)}
		before = append(before, ruleFor{k, false, []branch{b}, b.rule, b.action})
	}
	if len(before)+len(own) > 0 {
		l.rules[nr] = slices.Concat(before, own)
	}
}

// named are the rules for a call by its name, also where the architecture has no number for it.
func (l *lowering) named(name string) (found []ruleFor) {
	k, ok := findCall(name)
	if !ok {
		return nil
	}
	for i, r := range l.policy.Rules {
		if r.Arches != nil && !slices.Contains(r.Arches, l.arch) {
			continue
		}
		if slices.ContainsFunc(r.Names, func(n string) bool { return slices.Contains(expand(n), k) }) {
			found = append(found, ruleFor{call: k, branches: r.resolve(k, l.arch, i), rule: i, action: r.Action})
		}
	}
	return found
}

// blind is the answer to a call whose arguments cannot be seen: the strictest of those that could be right.
func (l *lowering) blind(rules []ruleFor) branch {
	var worst branch
	for _, r := range rules {
		for _, b := range r.branches {
			if worst.action == 0 || b.action.stricter(worst.action) {
				worst = branch{action: b.action, rule: b.rule}
			}
			if len(b.when) == 0 {
				return worst
			}
		}
	}
	if fallback := l.policy.fallback(); worst.action == 0 || fallback.stricter(worst.action) {
		worst = branch{action: fallback, rule: -1}
	}
	return worst
}
