//go:build linux

package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/caisson-dev/caisson/netstack"
)

// limits shows how well limits of bandwidth are kept: what arrives, headers of Ethernet included, against what was asked for. UDP is offered half as much again as may pass.
func (b *bench) limits(d time.Duration) error {
	_, spaces, err := b.own()
	for _, s := range spaces {
		defer s.end()
	}
	if err != nil {
		return err
	}
	for _, mbit := range []int64{10, 100, 1000} {
		for _, f := range []flow{{name: "TCP received", receive: true}, {name: "UDP received", receive: true, udp: true}, {name: "TCP sent"}, {name: "UDP sent", udp: true}} {
			f.omit, f.rate = 1, mbit*1_000_000*3/2
			if err := b.limit(f, mbit*1_000_000, d); err != nil {
				return fmt.Errorf("%s at %d Mbit/s: %w", f.name, mbit, err)
			}
		}
	}
	return nil
}

func (b *bench) limit(f flow, bits int64, d time.Duration) error {
	part := b.bridge()
	part.Subnets = netstack.DefaultSubnets()[:1]
	part.Bandwidth = netstack.Bandwidth{Send: netstack.Rate{Bytes: bits / 8}}
	if f.receive {
		part.Bandwidth = netstack.Bandwidth{Receive: netstack.Rate{Bytes: bits / 8}}
	}
	var rates, offers []float64
	for range b.rounds {
		text, err := iperf(part, f, d)
		if errors.Is(err, errors.ErrUnsupported) {
			fmt.Printf("%-14s %5d Mbit/s: %v\n", f.name, bits/1_000_000, err)
			return nil
		}
		if err != nil {
			return err
		}
		got, sent, err := received(text, f.udp)
		if err != nil {
			return err
		}
		share := frame / f.payload() / float64(bits)
		rates, offers = append(rates, got*share), append(offers, sent*share)
	}
	got, verdict := middle(rates), "within 5 %"
	switch {
	case got < 0.95 && f.udp && middle(offers) < 1.05:
		verdict = fmt.Sprintf("but this machine has sent only %.3f of it", middle(offers))
	case got < 0.95 || got > 1.05:
		verdict = "NOT within 5 %"
	}
	fmt.Printf("%-14s %5d Mbit/s: %.3f of it, %s\n", f.name, bits/1_000_000, got, verdict)
	return nil
}
