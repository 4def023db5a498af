//go:build linux

package seccomp

import "slices"

// multiplexer is a call that stands for many: its first argument says which one, and the arguments of that are in memory, where no filter
// sees them (socketcall(2), ipc(2)).
type multiplexer struct {
	name  string
	mask  uint64 // of the first argument: the upper half of ipc's is a version
	calls []string
}

var multiplexers = [...]multiplexer{
	{"socketcall", 1<<32 - 1, []string{1: "socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv",
		"sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg"}},
	{"ipc", 1<<16 - 1, []string{1: "semop", "semget", "semctl", "semtimedop", 11: "msgsnd", "msgrcv", "msgget", "msgctl",
		21: "shmat", "shmdt", "shmget", "shmctl"}},
}

// multiplexes reports whether the architecture has such a call.
func (a Arch) multiplexes() bool {
	_, has := a.Number(multiplexers[0].name)
	return has
}

// multiplex lets the rules for a call hold also where it is made through a multiplexer: else who may not call socket calls
// socketcall.
func (l *lowering) multiplex() {
	for _, m := range multiplexers {
		k, _ := findCall(m.name)
		if nr := k.number(l.arch); nr >= 0 {
			l.through(m, k, uint32(nr))
		}
	}
}

func (l *lowering) through(m multiplexer, k *call, nr uint32) {
	own := slices.ContainsFunc(l.list, func(r ruleFor) bool { return r.nr == nr }) // the policy names the multiplexer itself
	var before []ruleFor
	for n, name := range m.calls {
		rules := l.named(name)
		if len(rules) == 0 {
			continue
		}
		b := l.blind(rules)
		if own && b.action.Allows() {
			continue
		}
		b.when = []match{Condition{Arg: 0, Op: MaskedEqual, Mask: m.mask, Value: uint64(n)}.resolve(k, l.arch)}
		before = append(before, ruleFor{nr: nr, call: k, branches: []branch{b}, rule: b.rule, through: true})
	}
	l.list = slices.Concat(before, l.list)
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
		if slices.ContainsFunc(l.names[i], func(n namedCall) bool { return n.call == k }) {
			found = append(found, ruleFor{call: k, branches: r.resolve(k, l.arch, i), rule: i})
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

// apart does for profiles what libseccomp does: a rule for a call holds also for the multiplexer with the call's number as first argument. What the
// rule says about that argument is forgotten; conditions on others stay, and look at what is not there.
func (l *lowering) apart(index int, via concealed, r Rule) {
	branches := r.onlyFirst(via.first).resolve(via.call, l.arch, index)
	l.list = append(l.list, ruleFor{nr: uint32(via.call.number(l.arch)), call: via.call, branches: branches, rule: index, through: true})
}

// concealed is how a call is made by way of a multiplexer: its first argument.
type concealed struct {
	call  *call
	first uint64
}

// behind are the calls that the architecture's multiplexers stand for.
func behind(a Arch) map[*call]concealed {
	list := make(map[*call]concealed, 64)
	for _, m := range multiplexers {
		k, _ := findCall(m.name)
		for n, name := range m.calls {
			if of, ok := findCall(name); ok && k.number(a) >= 0 {
				list[of] = concealed{k, uint64(n)}
			}
		}
	}
	return list
}

func (r Rule) onlyFirst(n uint64) Rule {
	first := Condition{Arg: 0, Value: n, Width: Libseccomp}
	if r.When == nil {
		r.When = Any{{first}}
		return r
	}
	var when Any
	for _, l := range r.When {
		all := All{first}
		for _, c := range l {
			if c.Arg != 0 {
				all = append(all, c)
			}
		}
		if !slices.ContainsFunc(when, func(o All) bool { return slices.Equal(o, all) }) { // many differ in the first argument alone
			when = append(when, all)
		}
	}
	r.When = when
	return r
}
