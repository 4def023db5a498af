//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// flow is one way of sending that iperf3(1) measures.
type flow struct {
	name    string
	udp     bool
	receive bool  // to the sandbox
	rate    int64 // bits per second of payload that are offered; 0 is as many as possible
	omit    int   // seconds at the beginning that do not count
}

func (f flow) args(d time.Duration) []string {
	a := []string{"-c", "192.0.2.1", "-J", "-t", strconv.Itoa(max(int(d.Seconds()), 1)), "-O", strconv.Itoa(f.omit)}
	if f.receive {
		a = append(a, "-R")
	}
	if f.udp {
		a = append(a, "-u", "-l", strconv.Itoa(udpPayload), "-b", strconv.FormatInt(f.rate, 10))
	}
	if f.udp && f.receive { // or the receiver loses what comes in bursts; a sender waits for its buffer, so its is left as it is
		a = append(a, "-w", "4M")
	}
	return a
}

// What of an Ethernet frame of 1514 bytes is the program's: behind the headers of IPv4 and UDP, or TCP with its time stamps.
const (
	frame      = 1514
	udpPayload = frame - 14 - 20 - 8
	tcpPayload = frame - 14 - 20 - 32
)

func (f flow) payload() float64 {
	if f.udp {
		return udpPayload
	}
	return tcpPayload
}

// received gives how many bits per second have arrived, and how many were sent, of what iperf3 -J has printed.
func received(text string, udp bool) (got, sent float64, err error) {
	type sum struct {
		Bits float64 `json:"bits_per_second"`
		Lost float64 `json:"lost_percent"`
	}
	var r struct {
		Error string `json:"error"`
		End   struct {
			Sum      sum `json:"sum"` // of UDP: what was sent
			Received sum `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return 0, 0, fmt.Errorf("%w: %s", err, text)
	}
	if r.Error != "" {
		return 0, 0, fmt.Errorf("iperf3: %s", r.Error)
	}
	if udp {
		return r.End.Sum.Bits * (1 - r.End.Sum.Lost/100), r.End.Sum.Bits, nil
	}
	return r.End.Received.Bits, r.End.Received.Bits, nil
}
