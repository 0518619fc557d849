// Package cors answers preflight requests and says in responses which other origins may read them: Gateway API's CORS filter, after
// the Fetch standard's CORS protocol.
package cors

// Config is an HTTPCORSFilter.
type Config struct {
	// AllowOrigins are "scheme://host[:port]" with http or https; the host may be "*" or begin with "*.", which stands for one or
	// more labels. "*" alone stands for every origin. Empty allows none.
	AllowOrigins []string `json:"allowOrigins,omitempty"`
	// AllowCredentials lets a browser send cookies and credentials along.
	AllowCredentials bool `json:"allowCredentials,omitempty"`
	// AllowMethods are methods or "*" alone. GET, HEAD and POST are allowed by the protocol.
	AllowMethods []string `json:"allowMethods,omitempty"`
	// AllowHeaders are names of request fields or "*" alone.
	AllowHeaders []string `json:"allowHeaders,omitempty"`
	// ExposeHeaders are names of response fields that scripts may read, or "*".
	ExposeHeaders []string `json:"exposeHeaders,omitempty"`
	// MaxAge is how long a browser keeps the answer to a preflight request, in seconds. 0 means 5.
	MaxAge int32 `json:"maxAge,omitempty"`
}
