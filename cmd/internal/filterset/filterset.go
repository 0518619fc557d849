// Package filterset is the explicit list of the filters that Gatehouse is built with.
package filterset

import (
	"gatehouse.dev/gatehouse/auth/extauthz"
	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/filters/cors"
	"gatehouse.dev/gatehouse/filters/headers"
	"gatehouse.dev/gatehouse/filters/mirror"
	"gatehouse.dev/gatehouse/filters/redirect"
	"gatehouse.dev/gatehouse/filters/rewrite"
)

// New returns the filters of this build.
func New() (*filters.Set, error) {
	return filters.NewSet(
		cors.Spec(),
		extauthz.Spec(),
		headers.RequestSpec(),
		headers.ResponseSpec(),
		redirect.Spec(),
		rewrite.Spec(),
		mirror.Spec(),
	)
}
