package exchange

import (
	"bytes"
	"fmt"
	"strings"
)

// A path has many spellings and an origin picks one meaning. The gateway picks it first: the normal form below is the string that
// is matched, authorized and forwarded, so that the three cannot disagree.
//
//	/a/./b/../c        /a/c          dot segments are resolved (RFC 3986 5.2.4)
//	/a/%2e%2E/c        /c            encoded dots are dots
//	/a/b/..  /a/.      /a/           a dot segment at the end leaves its slash
//	//a///b            /a/b          runs of slashes are one slash, before dot segments are resolved
//	/%7Euser/%41       /~user/A      escapes of unreserved characters are decoded (RFC 3986 6.2.2.2)
//	/a%2fb  /a%5cb     /a%2Fb /a%5Cb an escaped slash or backslash stays escaped, in upper case; it never separates
//	/a%252fb           /a%252fb      decoded once, never twice
//	/a;x=1/b           /a;x=1/b      parameters belong to their segment
//	/caf%C3%A9         /caf%C3%A9    other escapes stay
//	/a[1]|b^2          /a[1]|b^2     the four that browsers do not escape although RFC 3986 asks for it
//	/.well-known /...  the same      names that only begin with a dot
//	/../a  /a/../../b  refused       climbs above the root
//	/..;/a  /.%3bx/a   refused       a dot segment for servers that strip parameters
//	/a/..%2fb  /a%5c.. refused       a dot segment for servers that decode slashes
//	/%00  /a%c0%af     refused       NUL; overlong UTF-8
//	/a\b  /a b  /a#b   refused       other bytes that RFC 3986 does not allow in a path, unescaped UTF-8 among them
//	/%zz  /%2          refused       broken escapes
//	a/b  (empty)       refused       not absolute
//
// The normal form is its own normal form, and never longer than what was received.

type errPath string

// Error returns what is wrong with the path.
func (e errPath) Error() string { return string(e) }

// NormalizePath returns the one normal form of an absolute path without query, or an error that says why it has none. A path
// already in that form is returned as it is. Paths in a configuration go through it too, so that they compare with those of
// requests.
func NormalizePath(path string) (string, error) {
	if path == "" || path[0] != '/' {
		return "", errPath("the path does not begin with '/'")
	}
	if inNormalForm(path) {
		return path, nil
	}
	decoded, err := decodeUnreserved(path)
	if err != nil {
		return "", err
	}
	resolved, err := resolveDots(decoded)
	if err != nil {
		return "", err
	}
	return string(resolved), nil
}

// inNormalForm reports, in one pass without allocation, whether the path certainly is in normal form: the common case. It may
// answer false for a path that turns out to be.
func inNormalForm(path string) bool {
	boundary := false // a name begins here: after a slash, escaped or not
	for i := 0; i < len(path); i++ {
		c := path[i]
		switch {
		case !pathBytes[c]:
			return false
		case c == '/':
			if i > 0 && path[i-1] == '/' {
				return false
			}
			boundary = true
			continue
		case c == '%':
			value, ok := keptEscape(path, i)
			if !ok {
				return false
			}
			i += 2
			boundary = value == '/' || value == '\\'
			continue
		case c == '.' && boundary && dotsOnly(path[i:]):
			return false
		}
		boundary = false
	}
	return true
}

// dotsOnly reports whether rest begins with one or two dots that may be a whole name: an end, a slash, parameters or an escape
// follow.
func dotsOnly(rest string) bool {
	n := 1
	if n < len(rest) && rest[n] == '.' {
		n++
	}
	return n == len(rest) || rest[n] == '/' || rest[n] == ';' || rest[n] == '%'
}

// keptEscape returns the byte of an escape that stands in the path as the normal form has it.
func keptEscape(path string, i int) (value byte, ok bool) {
	value, ok = unhex(path, i)
	return value, ok && value != 0 && !unreserved(value) && !overlong(value, path, i+3) && upperHex(path[i+1]) == path[i+1] &&
		upperHex(path[i+2]) == path[i+2]
}

// decodeUnreserved decodes escapes of unreserved characters, writes the others in upper case and refuses what is unsafe.
func decodeUnreserved(path string) ([]byte, error) {
	out := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		switch {
		case !pathBytes[c]:
			return nil, errPath(fmt.Sprintf("the path holds %q, which must be escaped", path[i:i+1]))
		case c != '%':
			out = append(out, c)
			continue
		}
		value, ok := unhex(path, i)
		switch {
		case !ok:
			return nil, errPath("the path holds a '%' that is not followed by two hex digits")
		case value == 0:
			return nil, errPath("the path holds %00")
		case overlong(value, path, i+3):
			return nil, errPath("the path holds an overlong UTF-8 sequence")
		case unreserved(value):
			out = append(out, value)
		default:
			out = append(out, '%', upperHex(path[i+1]), upperHex(path[i+2]))
		}
		i += 2
	}
	return out, nil
}

// resolveDots joins runs of slashes and resolves dot segments, in place: p[:done] is the result so far, without the slash that
// follows it, and stays behind what is read because every name was read with a slash before it.
func resolveDots(p []byte) ([]byte, error) {
	done, trailing := 0, false
	for next := 0; next < len(p); {
		for next < len(p) && p[next] == '/' {
			next++
		}
		end := len(p)
		if i := bytes.IndexByte(p[next:], '/'); i >= 0 {
			end = next + i
		}
		segment := p[next:end]
		next = end
		switch name := string(segment); name {
		case "", ".":
			trailing = true
		case "..":
			if done == 0 {
				return nil, errPath("the path climbs above the root")
			}
			done, trailing = bytes.LastIndexByte(p[:done], '/'), true
		default:
			if err := checkSegment(name); err != nil {
				return nil, err
			}
			p[done] = '/'
			done += 1 + copy(p[done+1:], segment)
			trailing = false
		}
	}
	if trailing {
		p[done] = '/'
		done++
	}
	return p[:done], nil
}

// checkSegment refuses a segment that some server would take for a dot segment, after it stripped parameters or decoded slashes.
func checkSegment(segment string) error {
	for rest := segment; rest != ""; {
		part := rest
		if cut := escapedSlash(rest); cut >= 0 {
			part, rest = rest[:cut], rest[cut+len("%2F"):]
		} else {
			rest = ""
		}
		name, _, params := strings.Cut(part, ";")
		if before, _, escaped := strings.Cut(name, "%3B"); escaped {
			name, params = before, true
		}
		switch {
		case name != "." && name != "..":
		case params:
			return errPath("the path holds a dot segment with parameters")
		default:
			return errPath("the path holds a dot segment beside an escaped slash or backslash")
		}
	}
	return nil
}

// escapedSlash returns where the first %2F or %5C stands, or -1. The escapes are in upper case by now.
func escapedSlash(s string) int {
	slash, backslash := strings.Index(s, "%2F"), strings.Index(s, "%5C")
	if slash < 0 || backslash < 0 {
		return max(slash, backslash)
	}
	return min(slash, backslash)
}

// overlong reports whether an escaped byte begins a UTF-8 sequence longer than its character needs (RFC 3629 3): C0 and C1 always
// do, the others by what follows. F8 and FC begin the five and six byte forms of RFC 2279, which old decoders know.
func overlong(lead byte, path string, next int) bool {
	var least byte // of the byte that follows, in a sequence that is not overlong
	switch lead {
	case 0xc0, 0xc1:
		return true
	case 0xe0:
		least = 0xa0
	case 0xf0:
		least = 0x90
	case 0xf8:
		least = 0x88
	case 0xfc:
		least = 0x84
	default:
		return false
	}
	follow, ok := unhex(path, next)
	return ok && follow >= 0x80 && follow < least
}

// unhex decodes the escape that begins at path[i].
func unhex(path string, i int) (byte, bool) {
	if i+2 >= len(path) || path[i] != '%' {
		return 0, false
	}
	high, ok1 := hexDigit(path[i+1])
	low, ok2 := hexDigit(path[i+2])
	return high<<4 | low, ok1 && ok2
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

func upperHex(c byte) byte {
	if 'a' <= c && c <= 'f' {
		return c - 'a' + 'A'
	}
	return c
}

// pathBytes are the bytes that may stand in a path: RFC 3986 3.3, and the four that browsers leave unescaped (WHATWG URL, path
// percent-encode set; '^' in older ones). It is never written after start.
var pathBytes = func() (set [256]bool) {
	for c := range 256 {
		set[c] = unreserved(byte(c)) || c < 0x80 && strings.IndexByte("!$&'()*+,;=:@/%[]^|", byte(c)) >= 0
	}
	return set
}()

// unreserved is RFC 3986 2.3.
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}
