// Package harness is what the behaviour tests of the data plane stand on: clients for every downstream protocol that put exactly
// the given fields and bytes on the wire and show everything that came back, origins for every upstream protocol, an origin that
// records the raw bytes that reached it, a test CA, and an Engine started on loopback.
//
// The clients speak HTTP/1.1, HTTP/2 and HTTP/3 by themselves, over plain frames and lines, because a test of a proxy must send
// what no well-behaved library sends and see what every library hides: field order, interim responses, the way a stream ended.
// The package knows the configuration and the Engine, nothing of what lies below them.
package harness

import (
	"strings"
	"testing"
	"time"
)

// Patience bounds every wait of a test: long enough for a busy machine under the race detector, never reached when all is well.
const Patience = 20 * time.Second

// Down is a way to reach the gateway.
type Down string

// The downstream protocols.
const (
	H1    Down = "h1"
	H1TLS Down = "h1-tls"
	H2    Down = "h2"
	H2C   Down = "h2c"
	H3    Down = "h3"
)

// TLS reports whether the protocol needs an HTTPS listener.
func (d Down) TLS() bool { return d == H1TLS || d == H2 || d == H3 }

// IsH1 reports whether requests are HTTP/1.1 messages.
func (d Down) IsH1() bool { return d == H1 || d == H1TLS }

// Scheme is "https" on an HTTPS listener, else "http".
func (d Down) Scheme() string {
	if d.TLS() {
		return "https"
	}
	return "http"
}

// Up is a way from the gateway to an origin.
type Up string

// The upstream protocols.
const (
	UpH1    Up = "h1"
	UpH2C   Up = "h2c"
	UpH2TLS Up = "h2-tls"
)

// Combo is one way through the gateway.
type Combo struct {
	Down Down
	Up   Up
}

// String returns "down-up" as in a subtest's name.
func (c Combo) String() string { return string(c.Down) + "_to_" + string(c.Up) }

// Downs lists the downstream protocols.
func Downs() []Down { return []Down{H1, H1TLS, H2, H2C, H3} }

// Ups lists the upstream protocols.
func Ups() []Up { return []Up{UpH1, UpH2C, UpH2TLS} }

// Each runs body once for every combination of downstream and upstream protocol, as parallel subtests.
func Each(t *testing.T, body func(t *testing.T, c Combo)) {
	t.Helper()
	for _, down := range Downs() {
		for _, up := range Ups() {
			c := Combo{down, up}
			t.Run(c.String(), func(t *testing.T) {
				t.Parallel()
				body(t, c)
			})
		}
	}
}

// EachDown runs body once for every downstream protocol, as parallel subtests: for behaviour that no upstream takes part in.
func EachDown(t *testing.T, body func(t *testing.T, d Down)) {
	t.Helper()
	for _, down := range Downs() {
		t.Run(string(down), func(t *testing.T) {
			t.Parallel()
			body(t, down)
		})
	}
}

// Field is one field line as on the wire.
type Field struct{ Name, Value string }

// Fields is a list of field lines in wire order.
type Fields []Field

// F returns the field lines of name and value in turn.
func F(pairs ...string) Fields {
	fields := make(Fields, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		fields = append(fields, Field{pairs[i], pairs[i+1]})
	}
	return fields
}

// Get returns the first value of a field, "" when absent.
func (f Fields) Get(name string) string {
	if all := f.Values(name); len(all) > 0 {
		return all[0]
	}
	return ""
}

// Has reports whether the field is present.
func (f Fields) Has(name string) bool { return len(f.Values(name)) > 0 }

// Values returns the values of all lines of a field in order.
func (f Fields) Values(name string) []string {
	var all []string
	for _, line := range f {
		if strings.EqualFold(line.Name, name) {
			all = append(all, line.Value)
		}
	}
	return all
}
