package plan

import (
	"cmp"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/routing"
)

// ByPrecedence orders objects that are otherwise equal: the oldest first, then by namespace and name (Gateway API:
// HTTPRouteRule.matches, Listener.allowedRoutes). A zero time, which objects of a folder have, is the oldest.
func ByPrecedence(aCreated time.Time, a config.Origin, bCreated time.Time, b config.Origin) int {
	return cmp.Or(aCreated.Compare(bCreated), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// RoutePrecedence is ByPrecedence for routes. Of two kinds under one name, it is the kind that decides.
func RoutePrecedence(a, b *config.Route) int {
	return cmp.Or(ByPrecedence(a.Created, a.Origin, b.Created, b.Origin), cmp.Compare(a.Origin.Kind, b.Origin.Kind))
}

// Intersects reports whether a listener with the given hostname serves any of a route's hostnames. A route without hostnames takes the
// listener's; a listener without one serves every host.
func Intersects(listener string, route []string) bool {
	if listener == "" || len(route) == 0 {
		return true
	}
	for _, h := range route {
		if _, ok := routing.Intersect(listener, h); ok {
			return true
		}
	}
	return false
}
