// Package extauthz asks an authorization server about each request before it goes on: Gateway API's HTTPExternalAuthFilter, over HTTP or over
// Envoy's ext_authz protocol, version 3, over gRPC.
//
// In flows the exchange's request head, and its body where the settings ask for it; out flows either the request as the server wants it to go on, or
// the server's answer to the client. Whenever the server cannot be asked, or its answer is not one, the request is refused: the filter never
// opens. The package knows clusters by name only, and nothing of connections.
package extauthz

// Protocol is how the authorization server is asked.
type Protocol string

// The protocols of an authorization server.
const (
	HTTP Protocol = "HTTP"
	GRPC Protocol = "GRPC"
)

// Config is an HTTPExternalAuthFilter with its backendRef resolved.
type Config struct {
	Protocol Protocol `json:"protocol"`
	// Cluster is the name of the cluster of authorization servers; "" when Invalid is set.
	Cluster string `json:"cluster,omitempty"`
	// Invalid is the reason word for a backendRef that does not resolve: every request is refused.
	Invalid string `json:"invalid,omitempty"`
	// Path is put before the path of the request, with HTTP; "" adds nothing.
	Path string `json:"path,omitempty"`
	// AllowedHeaders are the client's fields that the server gets: with GRPC and none, all of them; with HTTP these beside Host and
	// Authorization.
	AllowedHeaders []string `json:"allowedHeaders,omitempty"`
	// AllowedResponseHeaders are the fields of the server's answer that the backend gets, with HTTP. What a client sends under these names
	// never reaches the backend. With none it gets all that do not speak of the answer itself.
	AllowedResponseHeaders []string `json:"allowedResponseHeaders,omitempty"`
	// MaxBody is how many bytes of the request's body the server gets; 0 means none. A longer body is refused.
	MaxBody int32 `json:"maxBody,omitempty"`
}
