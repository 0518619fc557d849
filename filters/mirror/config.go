// Package mirror sends copies of requests to another backend, whose answers nobody sees: Gateway API's RequestMirror.
package mirror

// Config is an HTTPRequestMirrorFilter with its backendRef resolved. Percent and Fraction exclude each other; without them every
// request is mirrored.
type Config struct {
	// Cluster is the name of the cluster that gets the copies; "" when Invalid is set.
	Cluster string `json:"cluster,omitempty"`
	// Invalid is the reason word for a backendRef that does not resolve: nothing is mirrored, the request itself is served.
	Invalid string `json:"invalid,omitempty"`
	// Percent is 0 to 100.
	Percent *int32 `json:"percent,omitempty"`
	// Fraction is for shares that percents cannot say.
	Fraction *Fraction `json:"fraction,omitempty"`
}

// Fraction is Numerator requests of Denominator.
type Fraction struct {
	Numerator int32 `json:"numerator"`
	// Denominator 0 means 100.
	Denominator int32 `json:"denominator,omitempty"`
}
