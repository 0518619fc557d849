// Package routing decides which rule a request takes. It compiles rules (hostnames and matches with a value of any type) into an
// immutable Table whose Find costs the same with ten rules and with fifty thousand, and whose Explain runs the same code and
// says for each rule why it won or lost.
//
// The package knows requests (exchange.Head) and nothing of what a rule leads to: no configuration, filters or clusters.
package routing

// PathType is how Match.Path compares.
type PathType string

// The path match types of Gateway API.
const (
	// PathPrefix matches whole segments: "/foo" matches "/foo", "/foo/" and "/foo/bar", not "/foobar". It is the default ("").
	PathPrefix PathType = "PathPrefix"
	PathExact  PathType = "Exact"
	// PathRegex is an RE2 expression that must match the whole path.
	PathRegex PathType = "RegularExpression"
)

// Match is one set of conditions; all of them must hold. The zero value matches every request.
type Match struct {
	PathType PathType     `json:"pathType,omitempty"`
	Path     string       `json:"path,omitempty"`
	Method   string       `json:"method,omitempty"`
	Headers  []ValueMatch `json:"headers,omitempty"`
	Query    []ValueMatch `json:"query,omitempty"`
	// Specificity, when not 0, stands in the order of precedence in the place of the path's type and length: the greater, the earlier. It
	// is for matches whose precedence is not that of paths, such as those on gRPC services. It is less than 1<<24.
	Specificity uint32 `json:"specificity,omitempty"`
}

// ValueMatch is a condition on a header or query parameter. A header's name ignores case; a parameter's does not.
type ValueMatch struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	// Regex makes Value an RE2 expression that must match the whole value.
	Regex bool `json:"regex,omitempty"`
}

// MaxPattern bounds the length of a regular expression in bytes (Gateway API allows up to 1,024 for paths and 4,096 for headers).
const MaxPattern = 4096
