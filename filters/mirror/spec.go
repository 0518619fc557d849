package mirror

import (
	"fmt"

	"gatehouse.dev/gatehouse/filters"
)

// Kind is the name that a policy carries.
const Kind = "RequestMirror"

// Spec describes the filter.
func Spec() filters.Spec {
	return filters.Shape[Config, *filter]{
		Kind:     Kind,
		Phase:    filters.PhaseMirror,
		Compile:  compile,
		Filter:   func(f *filter, _ *filters.Builder) filters.Filter { return f },
		Clusters: clusters,
		Describe: describe,
	}.Spec()
}

// describe says "mirror 1/1000 of requests to Service/shop/reviews/8080".
func describe(c Config, _ *filter) string {
	share := "all"
	switch {
	case c.Invalid != "":
		return "mirror nothing: " + c.Invalid
	case c.Percent != nil:
		share = fmt.Sprintf("%d%% of", *c.Percent)
	case c.Fraction != nil:
		share = fmt.Sprintf("%d/%d of", c.Fraction.Numerator, c.Fraction.denominator())
	}
	return "mirror " + share + " requests to " + c.Cluster
}

func clusters(c Config) []string {
	if c.Cluster == "" {
		return nil
	}
	return []string{c.Cluster}
}
