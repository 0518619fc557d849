package extauthz

import (
	"errors"
	"fmt"
	"strings"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Kind is the name that a policy carries.
const Kind = "ExternalAuth"

// Spec describes the filter.
func Spec() filters.Spec {
	return filters.Shape[Config, *filter]{
		Kind:    Kind,
		Phase:   filters.PhaseAuthorize,
		Compile: compile,
		Filter: func(f *filter, b *filters.Builder) filters.Filter {
			f.added = filters.NewSlot[[]change](b)
			return f
		},
		Clusters: func(c Config) []string {
			if c.Cluster == "" {
				return nil
			}
			return []string{c.Cluster}
		},
		Describe: describe,
	}.Spec()
}

// describe says "ask Service/shop/auth/9000 (GRPC), with up to 1024 bytes of the body".
func describe(c Config, _ *filter) string {
	if c.Invalid != "" {
		return "refuse every request: " + c.Invalid
	}
	text := fmt.Sprintf("ask %s (%s)", c.Cluster, c.Protocol)
	if c.MaxBody > 0 {
		text += fmt.Sprintf(", with up to %d bytes of the body", c.MaxBody)
	}
	return text
}

func compile(c Config) (*filter, error) {
	f := &filter{cluster: c.Cluster, invalid: c.Invalid, grpc: c.Protocol == GRPC, maxBody: int(c.MaxBody),
		allowed: c.AllowedHeaders, returned: c.AllowedResponseHeaders}
	switch {
	case c.Protocol != HTTP && c.Protocol != GRPC:
		return nil, fmt.Errorf("protocol %q is not known: use HTTP or GRPC", c.Protocol)
	case c.Cluster == "" && c.Invalid == "":
		return nil, errors.New("cluster is empty: name the cluster to ask, or say in invalid why there is none")
	case c.Cluster != "" && c.Invalid != "":
		return nil, errors.New("cluster and invalid are both set: leave one out")
	case c.MaxBody < 0:
		return nil, fmt.Errorf("maxBody %d is negative: use 0 to send no body", c.MaxBody)
	case f.grpc && (c.Path != "" || len(c.AllowedResponseHeaders) > 0):
		return nil, errors.New("path and allowedResponseHeaders are for protocol HTTP: leave them out")
	}
	if c.Path != "" {
		path := c.Path
		if path[0] != '/' {
			path = "/" + path
		}
		normal, err := exchange.NormalizePath(path)
		if err != nil {
			return nil, fmt.Errorf("path %q: %w", c.Path, err)
		}
		f.prefix = strings.TrimSuffix(normal, "/")
	}
	for _, list := range [][]string{c.AllowedHeaders, c.AllowedResponseHeaders} {
		for _, name := range list {
			if !isToken(name) {
				return nil, fmt.Errorf("%q is not a field name: only letters, digits and !#$%%&'*+-.^_`|~ may stand in one", name)
			}
		}
	}
	return f, nil
}
