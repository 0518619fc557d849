package routing

import (
	"fmt"
	"strings"
)

// Hosts finds the entry that belongs to a host name: the exact name, then the longest matching wildcard, then the entry for every
// host. Table stands on it, and so does the choice of a listener by Host or SNI.
//
// A host is in the form of exchange.CanonicalHost; a pattern is an exact name, "*.suffix", or "" for every host. "*.example.com"
// matches a.example.com and a.b.example.com, not example.com (HTTPRouteSpec.Hostnames).
//
// The zero value is empty and ready to use. Fill it with Set from one goroutine; after the last Set any number may Find.
type Hosts[T any] struct {
	exact map[string]T
	// wild is keyed by the pattern without its star: ".example.com".
	wild map[string]T
	// longest is the length of the longest key in wild. It keeps the cost of a hostile host of ten thousand labels at that of an
	// ordinary one.
	longest int
	every   T
	any     bool
}

// Set puts value under the pattern, in place of what stood there.
func (h *Hosts[T]) Set(pattern string, value T) {
	switch {
	case pattern == "":
		h.every, h.any = value, true
	case isWildcard(pattern):
		if h.wild == nil {
			h.wild = make(map[string]T)
		}
		h.wild[pattern[1:]] = value
		h.longest = max(h.longest, len(pattern)-1)
	default:
		if h.exact == nil {
			h.exact = make(map[string]T)
		}
		h.exact[pattern] = value
	}
}

// Get returns the value that Set put under exactly this pattern.
func (h *Hosts[T]) Get(pattern string) (value T, ok bool) {
	switch {
	case pattern == "":
		return h.every, h.any
	case isWildcard(pattern):
		value, ok = h.wild[pattern[1:]]
	default:
		value, ok = h.exact[pattern]
	}
	return value, ok
}

// Find returns the value of the most specific pattern that matches the host.
func (h *Hosts[T]) Find(host string) (value T, ok bool) {
	value, _, ok = h.next(host, 0)
	return value, ok
}

// next walks the patterns that match host from the most to the least specific: begin at position 0 and hand the returned
// position back in until ok is false.
//
// A position is where in host the next suffix may begin: 0 stands for the exact name, a position past the end for "".
func (h *Hosts[T]) next(host string, pos int) (value T, after int, ok bool) {
	if pos == 0 {
		if value, ok = h.exact[host]; ok {
			return value, 1, true
		}
		pos = 1
	}
	if len(h.wild) > 0 {
		// A wildcard stands for at least one character, so a suffix never begins at 0.
		for pos = max(pos, len(host)-h.longest); pos < len(host); pos++ {
			dot := strings.IndexByte(host[pos:], '.')
			if dot < 0 {
				break
			}
			pos += dot
			if value, ok = h.wild[host[pos:]]; ok {
				return value, pos + 1, true
			}
		}
	}
	if h.any && pos <= len(host)+1 {
		return h.every, len(host) + 2, true
	}
	return value, len(host) + 2, false
}

// HostMatches reports whether the pattern matches the host.
func HostMatches(pattern, host string) bool {
	switch {
	case pattern == "":
		return true
	case isWildcard(pattern):
		return len(host) >= len(pattern) && strings.HasSuffix(host, pattern[1:])
	default:
		return pattern == host
	}
}

// Intersect returns the pattern of the hosts that both a listener's and a route's hostname match, and whether there are any. It is
// always the more specific of the two.
//
//	listener         route            effective
//	(none)           a.example.com    a.example.com
//	*.example.com    (none)           *.example.com
//	*.example.com    a.b.example.com  a.b.example.com
//	*.example.com    *.b.example.com  *.b.example.com
//	*.example.com    example.com      none
//	a.example.com    b.example.com    none
func Intersect(listener, route string) (string, bool) {
	switch {
	case covers(listener, route):
		return route, true
	case covers(route, listener):
		return listener, true
	default:
		return "", false
	}
}

// covers reports whether every host that matches narrow matches wide.
func covers(wide, narrow string) bool {
	switch {
	case wide == "" || wide == narrow:
		return true
	case narrow == "":
		return false
	case isWildcard(narrow):
		return isWildcard(wide) && strings.HasSuffix(narrow, wide[1:])
	default:
		return HostMatches(wide, narrow)
	}
}

func isWildcard(pattern string) bool { return strings.HasPrefix(pattern, "*.") }

// maxHost is the longest host name, RFC 1035 2.3.4 in its text form.
const maxHost = 253

// ValidateHost says what is wrong with a host pattern: one that no host in the form of exchange.CanonicalHost could match.
func ValidateHost(pattern string) error {
	name := strings.TrimPrefix(pattern, "*.")
	var reason string
	switch {
	case pattern == "":
		return nil
	case len(pattern) > maxHost:
		reason = "is longer than 253 bytes"
	case strings.IndexByte(name, '*') >= 0:
		reason = `holds a '*' that is not the whole first label; write "*.example.com"`
	case name == "" || strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, ".."):
		reason = "has an empty label; write it without leading, trailing or double dots"
	case strings.ToLower(pattern) != pattern:
		reason = "is not in lower case"
	case strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '/' || r == '@' || r >= 0x7f }):
		reason = "holds a character that no host name has; write names of other scripts in their xn-- form"
	default:
		return nil
	}
	return fmt.Errorf("host %.300q %s", pattern, reason)
}
