package rewrite

import (
	"strings"

	"gatehouse.dev/gatehouse/filters"
)

// Kind is the name that a policy carries.
const Kind = "URLRewrite"

// Spec describes the filter.
func Spec() filters.Spec {
	return filters.Spec{
		Kind:  Kind,
		Phase: filters.PhaseRewrite,
		Validate: func(payload []byte) error {
			_, err := open(payload)
			return err
		},
		Build: func(payload []byte, _ *filters.Builder) (filters.Filter, error) {
			f, err := open(payload)
			if err != nil {
				return nil, err
			}
			return f, nil
		},
		Describe: func(payload []byte) string {
			f, err := open(payload)
			if err != nil {
				return ""
			}
			return f.describe()
		},
	}
}

func open(payload []byte) (*filter, error) {
	c, err := filters.Decode[Config](payload)
	if err != nil {
		return nil, err
	}
	return compile(c)
}

// describe says "rewrite: host becomes example.org, path prefix /foo/ becomes /bar/".
func (f *filter) describe() string {
	var parts []string
	if f.hostname != "" {
		parts = append(parts, "host becomes "+f.hostname)
	}
	if f.path != nil {
		parts = append(parts, f.path.String())
	}
	if parts == nil {
		return "rewrite nothing"
	}
	return "rewrite: " + strings.Join(parts, ", ")
}
