//go:build linux

package cgroups

// io reads lines of "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6".
func (r *reader) io(d *dir) (all []IOStats) {
	b := r.file(d, "io.stat")
	for len(b) > 0 {
		line := cutLine(&b)
		dev := cutWord(&line)
		s, ok := deviceStats(dev)
		if !ok {
			continue
		}
		for len(line) > 0 {
			s.set(cutWord(&line))
		}
		if s.ReadBytes|s.WrittenBytes|s.Reads|s.Writes != 0 {
			all = append(all, s)
		}
	}
	return all
}

func (s *IOStats) set(word []byte) {
	for i, name := range [...]string{"rbytes=", "wbytes=", "rios=", "wios="} {
		if len(word) > len(name) && string(word[:len(name)]) == name {
			*[...]*int64{&s.ReadBytes, &s.WrittenBytes, &s.Reads, &s.Writes}[i], _ = parseInt(word[len(name):])
		}
	}
}

const (
	legacyBytes  = "blkio.throttle.io_service_bytes_recursive"
	legacyCounts = "blkio.throttle.io_serviced_recursive"
)

// legacyIO reads lines of "8:0 Read 1", in bytes or in operations.
func (r *reader) legacyIO(d *dir, files ...string) (all []IOStats) {
	for _, file := range files {
		b := r.file(d, file)
		for len(b) > 0 {
			line := cutLine(&b)
			dev, what := cutWord(&line), cutWord(&line)
			s, ok := deviceStats(dev)
			n, isNumber := parseInt(line)
			if !ok || !isNumber || n == 0 || string(what) != "Read" && string(what) != "Write" {
				continue
			}
			all = addLegacy(all, s, what[0] == 'R', file == legacyCounts, n)
		}
	}
	return all
}

func addLegacy(all []IOStats, s IOStats, read, count bool, n int64) []IOStats {
	i := 0
	for i < len(all) && (all[i].Major != s.Major || all[i].Minor != s.Minor) {
		i++
	}
	if i == len(all) {
		all = append(all, s)
	}
	switch p := &all[i]; {
	case read && count:
		p.Reads = n
	case read:
		p.ReadBytes = n
	case count:
		p.Writes = n
	default:
		p.WrittenBytes = n
	}
	return all
}

func deviceStats(dev []byte) (s IOStats, ok bool) {
	for i, c := range dev {
		if c == ':' {
			var okMinor bool
			s.Major, ok = parseInt(dev[:i])
			s.Minor, okMinor = parseInt(dev[i+1:])
			return s, ok && okMinor
		}
	}
	return s, false
}
