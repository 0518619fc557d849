package routing

import (
	"fmt"
	"slices"
	"strings"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// ValidateMatch says what is wrong with a match, nil if Compile accepts it. It is the one validator: translators call it so that what
// they accept is what the data plane can run.
func ValidateMatch(m Match) error {
	if _, err := checkMatch(&m); err != nil {
		return err
	}
	if m.PathType == PathRegex {
		if _, _, err := parsePattern(m.Path); err != nil {
			return fmt.Errorf("path: %w", err)
		}
	}
	if err := checkPatterns("header", m.Headers, strings.EqualFold); err != nil {
		return err
	}
	return checkPatterns("query parameter", m.Query, func(a, b string) bool { return a == b })
}

// checkPatterns checks the expressions of a list. Of several under one name only the first is looked at, as in addConditions.
func checkPatterns(kind string, list []ValueMatch, same func(a, b string) bool) error {
	for i := range list {
		repeats := func(v ValueMatch) bool { return same(v.Name, list[i].Name) }
		if !list[i].Regex || slices.ContainsFunc(list[:i], repeats) {
			continue
		}
		if _, _, err := parsePattern(list[i].Value); err != nil {
			return fmt.Errorf("%s %q: %w", kind, list[i].Name, err)
		}
	}
	return nil
}

// checkMatch checks everything but the regular expressions, whose check is shared with compiling them. It returns the path as it is
// compared with a normalised request path: a prefix has no trailing slash, so that "/" is "".
func checkMatch(m *Match) (path string, err error) {
	if path, err = checkPath(m); err != nil {
		return "", err
	}
	if m.Specificity >= 1<<specificityBits {
		return "", fmt.Errorf("specificity %d is not below %d", m.Specificity, 1<<specificityBits)
	}
	if m.Method != "" && !isToken(m.Method) {
		return "", fmt.Errorf("method %.100q is not a method name (RFC 9110 9.1)", m.Method)
	}
	for i := range m.Headers {
		if name := m.Headers[i].Name; !isToken(name) {
			return "", fmt.Errorf("header %d: %.100q is not a field name (RFC 9110 5.1)", i, name)
		}
	}
	for i := range m.Query {
		if m.Query[i].Name == "" {
			return "", fmt.Errorf("query parameter %d has no name", i)
		}
	}
	return path, nil
}

func checkPath(m *Match) (string, error) {
	path := m.Path
	switch m.PathType {
	case PathRegex:
		return path, nil
	case PathExact:
	case PathPrefix, "":
		if path == "" {
			return "", nil
		}
	default:
		return "", fmt.Errorf("path type %.100q is unknown; use %s, %s or %s", m.PathType, PathExact, PathPrefix, PathRegex)
	}
	if strings.IndexByte(path, '?') >= 0 {
		return "", fmt.Errorf("path %.200q holds '?'; match the query with query parameters", path)
	}
	normal, err := exchange.NormalizePath(path)
	if err != nil {
		return "", fmt.Errorf("path %.200q can match no request: %w", path, err)
	}
	if m.PathType != PathExact {
		normal = strings.TrimSuffix(normal, "/")
	}
	return normal, nil
}

// isToken is the token of RFC 9110 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}
