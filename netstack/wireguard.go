//go:build linux

package netstack

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"strconv"

	"github.com/caisson-dev/caisson/netstack/internal/owner"
)

// WireGuard has a [Vxlan] send nothing that is not encrypted and signed, and take nothing else (Linux 5.6, wg(8)). Each host has a private key, and knows the public keys of the others. The zero value does
// without. A kernel that has no WireGuard is an error that wraps errors.ErrUnsupported; it is never done without instead.
//
// It is a device of its own beside that of the Vxlan, which goes with it. The ends of the Vxlan are addresses in the tunnel that are made of the keys: from any other device the kernel takes nothing for
// it, and what a host sends in the tunnel passes with its own address only.
type WireGuard struct {
	Private PrivateKey  // of this host; the zero value stands for no WireGuard
	Public  []PublicKey // of the other hosts: one for each of Vxlan.Peers, in the same order
	Port    int         // UDP port of the tunnel, the same on all hosts, one for each Vxlan; 0 is 51820
	Device  string      // name of the tunnel's device, 1 to 15 bytes; "" is "wg-" and the Vxlan's
}

// PrivateKey is the secret by which a host proves that it is itself (Curve25519). The zero value is none. It prints as "(private key)".
type PrivateKey struct{ secret [keySize]byte }

// PublicKey tells a host's private key from others, and is no secret.
type PublicKey [keySize]byte

const keySize = 32

// NewPrivateKey makes a key that nobody else has.
func NewPrivateKey() (k PrivateKey) {
	rand.Read(k.secret[:])
	k.secret[0] &= 248 // as wg genkey does (RFC 7748, 5)
	k.secret[31] = k.secret[31]&127 | 64
	return k
}

// ParsePrivateKey reads a key as wg genkey writes it, in base64. What is not one is a [*ValueError], which does not contain the text.
func ParsePrivateKey(text string) (k PrivateKey, err error) {
	if !parseKey(k.secret[:], text) || k == (PrivateKey{}) {
		return PrivateKey{}, &ValueError{"Private", "(a private key)", "not a key of 32 bytes in base64"}
	}
	return k, nil
}

// ParsePublicKey reads a key as wg pubkey writes it, in base64. What is not one is a [*ValueError].
func ParsePublicKey(text string) (k PublicKey, err error) {
	if !parseKey(k[:], text) || k == (PublicKey{}) {
		return PublicKey{}, &ValueError{"Public", text, "not a key of 32 bytes in base64"}
	}
	return k, nil
}

func parseKey(key []byte, text string) bool {
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	return err == nil && len(text) == 44 && len(b) == keySize && copy(key, b) == keySize // 44 without the newlines that the decoder passes over
}

// Secret is the key in base64, to be kept by who may act for the host.
func (k PrivateKey) Secret() string { return base64.StdEncoding.EncodeToString(k.secret[:]) }

// Format writes "(private key)" whatever the verb is, so that no log contains it.
func (k PrivateKey) Format(s fmt.State, _ rune) { io.WriteString(s, "(private key)") }

// Public is what the other hosts must know; of the zero value it is the zero value.
func (k PrivateKey) Public() (p PublicKey) {
	if k == (PrivateKey{}) {
		return p
	}
	key, err := ecdh.X25519().NewPrivateKey(k.secret[:])
	if err == nil { // it has the right size
		copy(p[:], key.PublicKey().Bytes())
	}
	return p
}

// String is the key in base64.
func (k PublicKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

func (g WireGuard) wanted() bool {
	return g.Private != PrivateKey{} || len(g.Public) > 0 || g.Port != 0 || g.Device != ""
}

// check refuses what is half a WireGuard, too: without a private key nothing would be encrypted.
func (g WireGuard) check(peers int) error {
	if !g.wanted() {
		return nil
	}
	if err := checkName("Device", g.Device); err != nil {
		return err
	}
	switch {
	case g.Private == PrivateKey{}:
		return &ValueError{"Private", "", "WireGuard needs a key"}
	case owner.Of(g.Device) != "":
		return &ValueError{"Device", g.Device, "looks like a sandbox's cable"}
	case g.Port < 0 || g.Port > 65535:
		return &ValueError{"Port", strconv.Itoa(g.Port), "not a port"}
	case len(g.Public) != peers:
		return &ValueError{"Public", strconv.Itoa(len(g.Public)) + " keys", "not one for each of " + strconv.Itoa(peers) + " peers"}
	}
	return g.checkKeys()
}

func (g WireGuard) checkKeys() error {
	seen := map[PublicKey]bool{g.Private.Public(): true}
	for _, k := range g.Public {
		if k == (PublicKey{}) || seen[k] {
			return &ValueError{"Public", k.String(), "none, or that of two hosts"}
		}
		seen[k] = true
	}
	return nil
}
