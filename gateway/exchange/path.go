package exchange

import "strings"

// A path has many spellings and an origin picks one meaning. The gateway picks it first: the normal form below is the string that
// is matched, authorized and forwarded, so that the three cannot disagree.
//
//	/a/./b/../c        /a/c          dot segments are resolved (RFC 3986 5.2.4)
//	/a/%2e%2E/c        /c            encoded dots are dots
//	//a///b            /a/b          runs of slashes are one slash
//	/%7Euser/%41       /~user/A      escapes of unreserved characters are decoded (RFC 3986 6.2.2.2)
//	/a%2fb  /a%5cb     /a%2Fb /a%5Cb an escaped slash or backslash stays escaped, in upper case; it never separates
//	/a%252fb           /a%252fb      decoded once, never twice
//	/a;x=1/b           /a;x=1/b      parameters belong to their segment
//	/caf%C3%A9         /caf%C3%A9    other escapes stay
//	/../a  /a/../../b  refused       climbs above the root
//	/..;/a  /.;x/a     refused       a dot segment for servers that strip parameters
//	/%00  /a%c0%af     refused       NUL; overlong UTF-8
//	/a\b  /a b  /a#b   refused       bytes that RFC 3986 does not allow in a path
//	/%zz  /%2          refused       broken escapes
//	a/b  (empty)       refused       not absolute

type errPath string

// Error returns what is wrong with the path.
func (e errPath) Error() string { return string(e) }

// normalizePath returns the normal form of an absolute path. A path already in that form is returned as it is.
func normalizePath(path string) (string, error) {
	if path == "" || path[0] != '/' {
		return "", errPath("the path does not begin with '/'")
	}
	clean, err := scanPath(path)
	if err != nil || clean {
		return path, err
	}
	return rewritePath(path)
}

// scanPath reports whether the path is in normal form already, in one pass without allocation: the common case.
func scanPath(path string) (clean bool, err error) {
	for i := range len(path) {
		switch c := path[i]; {
		case c <= ' ' || c == 0x7f:
			return false, errPath("the path holds a space or a control character")
		case c == '\\' || c == '#':
			return false, errPath("the path holds '" + string(c) + "'")
		case c == '%':
			return false, nil
		case c == '/' && i+1 < len(path) && (path[i+1] == '/' || path[i+1] == '.'):
			return false, nil
		}
	}
	return true, nil
}

func rewritePath(path string) (string, error) {
	decoded, err := decodeUnreserved(path)
	if err != nil {
		return "", err
	}
	out := make([]byte, 0, len(decoded))
	rest := decoded
	for rest != "" {
		rest = strings.TrimLeft(rest, "/")
		segment, tail, more := strings.Cut(rest, "/")
		name, _, hasParams := strings.Cut(segment, ";")
		switch {
		case name != "." && name != "..":
			out = append(append(out, '/'), segment...)
			if !more && segment == "" { // the path ended in a slash
				return string(out), nil
			}
		case hasParams:
			return "", errPath("the path holds a dot segment with parameters")
		case name == "..":
			cut := strings.LastIndexByte(string(out), '/')
			if cut < 0 {
				return "", errPath("the path climbs above the root")
			}
			out = out[:cut]
			fallthrough
		default:
			if !more { // a dot segment at the end leaves a slash
				out = append(out, '/')
			}
		}
		if more && tail == "" {
			return string(append(out, '/')), nil
		}
		rest = tail
	}
	return string(out), nil
}

// decodeUnreserved decodes escapes of unreserved characters, writes the others in upper case and refuses what is unsafe.
func decodeUnreserved(path string) (string, error) {
	out := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		switch {
		case c <= ' ' || c == 0x7f:
			return "", errPath("the path holds a space or a control character")
		case c == '\\' || c == '#':
			return "", errPath("the path holds '" + string(c) + "'")
		case c != '%':
			out = append(out, c)
			continue
		}
		value, ok := unhex(path, i)
		switch {
		case !ok:
			return "", errPath("the path holds a '%' that is not followed by two hex digits")
		case value == 0:
			return "", errPath("the path holds %00")
		case overlong(value, path, i+3):
			return "", errPath("the path holds an overlong UTF-8 sequence")
		case unreserved(value):
			out = append(out, value)
		default:
			out = append(out, '%', upperHex(path[i+1]), upperHex(path[i+2]))
		}
		i += 2
	}
	return string(out), nil
}

// overlong reports whether an escaped byte begins a UTF-8 sequence longer than its character needs (RFC 3629 3): C0 and C1 always
// do, E0 before a byte under A0 and F0 before one under 90.
func overlong(lead byte, path string, next int) bool {
	switch lead {
	case 0xc0, 0xc1:
		return true
	case 0xe0, 0xf0:
		follow, ok := unhex(path, next)
		return ok && follow >= 0x80 && (lead == 0xe0 && follow < 0xa0 || lead == 0xf0 && follow < 0x90)
	}
	return false
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

// unreserved is RFC 3986 2.3.
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}
