//go:build linux

package cgroups

import (
	"math"
	"math/big"
	"strconv"
	"strings"
)

// ParseBytes reads a size as docker run -m does: "512m", "1.5g", "64kb", "1GiB", "1Gi", "1048576". A unit is a power of 1024
// whatever its spelling; see [ParseQuantity] for the other custom. A part of a byte is cut off. "max" is [NoLimit]. The error is a
// [*LimitError], also for what is negative or too large.
func ParseBytes(s string) (int64, error) {
	if s == "max" {
		return NoLimit, nil
	}
	if strings.HasPrefix(s, "-") {
		return 0, &LimitError{"bytes", s, "is negative"}
	}
	digits, unit := split(s)
	if unit != " " {
		unit = strings.ToLower(strings.TrimPrefix(unit, " "))
	}
	if unit != "b" {
		unit = strings.TrimSuffix(unit, "b")
	}
	power := strings.Index("bkmgtpe", strings.TrimSuffix(unit, "i"))
	if unit == "" {
		power = 0
	}
	if len(unit) > 2 || power < 0 || unit == "i" || unit == "bi" {
		return 0, &LimitError{"bytes", s, "has no such unit"}
	}
	return quantity("bytes", s, digits, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), uint(10*power))))
}

// ParseQuantity reads a quantity as Kubernetes does: "512Mi" is 512 * 1024 * 1024, "512M" 512 million, "1e3" a thousand, "1500m" two: a
// thousandth is "m", and what is no whole number is rounded up. The error is a [*LimitError], also for what is negative or too large.
func ParseQuantity(s string) (int64, error) {
	r, err := parseRat("quantity", s)
	if err != nil {
		return 0, err
	}
	up := new(big.Int).Add(r.Num(), r.Denom())
	return whole("quantity", s, new(big.Rat).SetInt(up.Quo(up.Sub(up, big.NewInt(1)), r.Denom())))
}

// ParseCPUs reads a number of processors as docker run --cpus and Kubernetes do: "1.5", "250m" for a quarter, "2". The error is a [*LimitError],
// also for what is negative or more than any machine has.
func ParseCPUs(s string) (float64, error) {
	r, err := parseRat("CPUs", s)
	if err != nil {
		return 0, err
	}
	f, _ := r.Float64()
	if f > 1<<20 {
		return 0, &LimitError{"CPUs", s, "is more than any machine has"}
	}
	return f, nil
}

var suffixes = map[string][2]int{ // base and exponent
	"": {10, 0}, "n": {10, -9}, "u": {10, -6}, "m": {10, -3}, "k": {10, 3}, "M": {10, 6}, "G": {10, 9}, "T": {10, 12}, "P": {10, 15}, "E": {10, 18},
	"Ki": {2, 10}, "Mi": {2, 20}, "Gi": {2, 30}, "Ti": {2, 40}, "Pi": {2, 50}, "Ei": {2, 60},
}

// parseRat reads a quantity of Kubernetes exactly.
func parseRat(what, s string) (*big.Rat, error) {
	if strings.HasPrefix(s, "-") {
		return nil, &LimitError{what, s, "is negative"}
	}
	digits, suffix := split(s)
	unit, ok := suffixes[suffix]
	if !ok {
		e, isExponent := strings.CutPrefix(strings.ToLower(suffix), "e")
		n, err := strconv.Atoi(e)
		if !isExponent || err != nil || n < -30 || n > 30 {
			return nil, &LimitError{what, s, "has no such unit"}
		}
		unit = [2]int{10, n}
	}
	r, err := decimal(what, s, digits)
	if err != nil {
		return nil, err
	}
	factor := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(int64(unit[0])), big.NewInt(int64(max(unit[1], -unit[1]))), nil))
	if unit[1] < 0 {
		factor.Inv(factor)
	}
	return r.Mul(r, factor), nil
}

// split cuts a text after its number.
func split(s string) (digits, unit string) {
	i := 0
	for i < len(s) && (s[i] >= '0' && s[i] <= '9' || s[i] == '.') {
		i++
	}
	return s[:i], s[i:]
}

// decimal reads digits with at most one point. Forty of them are enough for anybody, and few enough to reckon with.
func decimal(what, s, digits string) (*big.Rat, error) {
	if len(digits) == 0 || len(digits) > 40 || strings.Count(digits, ".") > 1 || digits[0] == '.' || digits[len(digits)-1] == '.' {
		return nil, &LimitError{what, s, "is no number"}
	}
	r, ok := new(big.Rat).SetString(digits)
	if !ok {
		return nil, &LimitError{what, s, "is no number"}
	}
	return r, nil
}

func quantity(what, s, digits string, factor *big.Rat) (int64, error) {
	r, err := decimal(what, s, digits)
	if err != nil {
		return 0, err
	}
	return whole(what, s, r.Mul(r, factor))
}

// whole cuts off what is behind the point.
func whole(what, s string, r *big.Rat) (int64, error) {
	n := new(big.Int).Quo(r.Num(), r.Denom())
	if !n.IsInt64() || n.Int64() == math.MaxInt64 {
		return 0, &LimitError{what, s, "is too large"}
	}
	return n.Int64(), nil
}
