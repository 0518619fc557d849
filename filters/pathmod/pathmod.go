// Package pathmod replaces the path of a URL, or its matched prefix, as Gateway API's HTTPPathModifier says. Redirect and rewrite
// share it. It works on normalised paths (exchange.NormalizePath) and what it returns is normalised again.
package pathmod

import (
	"fmt"
	"strings"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Type says what of a path is replaced.
type Type string

// The types of HTTPPathModifier.
const (
	// ReplaceFullPath replaces the whole path.
	ReplaceFullPath Type = "ReplaceFullPath"
	// ReplacePrefixMatch replaces the prefix that the rule matched, by whole segments.
	ReplacePrefixMatch Type = "ReplacePrefixMatch"
)

// Config is an HTTPPathModifier with the match that it refers to.
type Config struct {
	Type Type `json:"type"`
	// Value is replaceFullPath or replacePrefixMatch. "" means "/".
	Value string `json:"value"`
	// MatchedPrefix is the value of the rule's one PathPrefix match, which ReplacePrefixMatch replaces. "" means "/".
	MatchedPrefix string `json:"matchedPrefix,omitempty"`
}

// Modifier is a compiled Config. A nil Modifier changes nothing.
type Modifier struct {
	kind Type
	// value is a normalised path; without its last slash for ReplacePrefixMatch, so that "/" is "".
	value string
	// prefix is normalised and without its last slash: a trailing slash of a prefix is ignored.
	prefix string
}

// Compile checks and compiles a Config; nil gives a nil Modifier.
func Compile(c *Config) (*Modifier, error) {
	if c == nil {
		return nil, nil
	}
	value, err := normal(c.Value)
	if err != nil {
		return nil, fmt.Errorf("path: %s %q: %w", c.Type, c.Value, err)
	}
	switch c.Type {
	case ReplaceFullPath:
		if c.MatchedPrefix != "" {
			return nil, fmt.Errorf("path: matchedPrefix %q has no use with %s: leave it out", c.MatchedPrefix, c.Type)
		}
		return &Modifier{kind: c.Type, value: value}, nil
	case ReplacePrefixMatch:
		prefix, err := normal(c.MatchedPrefix)
		if err != nil {
			return nil, fmt.Errorf("path: matchedPrefix %q: %w", c.MatchedPrefix, err)
		}
		return &Modifier{kind: c.Type, value: strings.TrimSuffix(value, "/"), prefix: strings.TrimSuffix(prefix, "/")}, nil
	}
	return nil, fmt.Errorf("path: type %q is not known: use %s or %s", c.Type, ReplaceFullPath, ReplacePrefixMatch)
}

func normal(path string) (string, error) {
	if path == "" {
		return "/", nil
	}
	return exchange.NormalizePath(path)
}

// Apply returns the modified path. A path that does not have the matched prefix, which a rule's own filters may have replaced
// before a backend's filters run, stays as it is; so does the "*" of an OPTIONS request.
//
//	path       prefix   value    result
//	/foo/bar   /foo     /xyz     /xyz/bar
//	/foo       /foo     /xyz     /xyz
//	/foo/      /foo     /xyz     /xyz/
//	/foo/bar   /foo     ""       /bar
//	/foo       /foo     ""       /
//	/foobar    /foo     /xyz     /foobar
func (m *Modifier) Apply(path string) string {
	switch {
	case m == nil || !strings.HasPrefix(path, "/"):
		return path
	case m.kind == ReplaceFullPath:
		return m.value
	}
	rest, ok := strings.CutPrefix(path, m.prefix)
	switch {
	case !ok || rest != "" && rest[0] != '/':
		return path
	case m.value == "" && rest == "":
		return "/"
	}
	// value ends without a slash and rest is empty or begins with one, so that the seam is that of a normalised path.
	return m.value + rest
}

// String says what the Modifier does: "path prefix /foo becomes /bar".
func (m *Modifier) String() string {
	switch {
	case m == nil:
		return ""
	case m.kind == ReplaceFullPath:
		return "path becomes " + m.value
	}
	return "path prefix " + m.prefix + "/ becomes " + m.value + "/"
}
