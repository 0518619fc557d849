package wire

import (
	"fmt"
	"slices"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/wire/internal/format"
)

// catalog cuts one Gateway's configurations, one after another, into resources. Only what has another pointer than in the configuration
// before is written anew; the rest of the work is comparing pointers. It is not safe for concurrent use.
type catalog struct {
	previous  *config.Config
	listeners map[string]*listing // by the listener's name
	routes    map[any]*attached   // by *config.Route and *config.StreamRoute
	taken     map[string]any      // whose resource name it is: the values are keys of routes
}

// attached is a route that listeners have.
type attached struct {
	name      string
	begins    bool // a page
	listeners int  // that have it
}

// listing is a listener's list of routes, and of stream routes after them, as it was sent.
type listing struct {
	routes, streams []*attached // as in the listener
	pages           map[string]*page
}

// page is one piece of a listing.
type page struct {
	routes   []*attached
	next     string
	resource string // its name
}

// edit is what one configuration changes of a catalog. Nothing of the catalog changes before commit.
type edit struct {
	catalog *catalog
	config  *config.Config
	put     map[string]*discovery.Resource
	drop    map[string]bool

	fresh     map[any]*attached // routes that no listener had
	uses      map[any]int       // by how many listeners more or fewer have a route
	listeners map[string]*listing
	gone      []string // listeners
}

func newCatalog() *catalog {
	return &catalog{previous: &config.Config{}, listeners: map[string]*listing{}, routes: map[any]*attached{}, taken: map[string]any{}}
}

// edit finds out what cfg changes. An error names the object that cannot be sent.
func (c *catalog) edit(cfg *config.Config) (*edit, error) {
	e := &edit{
		catalog: c, config: cfg, put: map[string]*discovery.Resource{}, drop: map[string]bool{},
		fresh: map[any]*attached{}, uses: map[any]int{}, listeners: map[string]*listing{},
	}
	clusters := compare(c.previous.Clusters, cfg.Clusters)
	for _, cluster := range clusters.removed {
		e.drop[format.ClusterName(cluster.Name)] = true
		e.drop[format.EndpointsName(cluster.Name)] = true
	}
	certificates := compare(c.previous.Certificates, cfg.Certificates)
	for _, cert := range certificates.removed {
		e.drop[format.CertificateName(cert.Name)] = true
	}
	for _, cluster := range clusters.added {
		if err := e.write(format.ClusterName(cluster.Name), cluster); err != nil {
			return nil, err
		}
		if len(cluster.Endpoints) == 0 {
			continue
		}
		endpoints := &format.Endpoints{Cluster: cluster.Name, Addresses: cluster.Endpoints}
		if err := e.write(format.EndpointsName(cluster.Name), endpoints); err != nil {
			return nil, err
		}
	}
	for _, cert := range certificates.added {
		if err := e.write(format.CertificateName(cert.Name), cert); err != nil {
			return nil, err
		}
	}
	return e, e.editListeners()
}

func (e *edit) write(name string, message any) error {
	resource, err := format.Encode(name, message)
	if err != nil {
		return err
	}
	if e.put[name] != nil {
		return fmt.Errorf("%s stands twice", name)
	}
	e.put[name] = resource
	return nil
}

func (e *edit) editListeners() error {
	before := make(map[string]*config.Listener, len(e.catalog.previous.Listeners))
	for _, l := range e.catalog.previous.Listeners {
		before[l.Name] = l
	}
	changed := compare(e.catalog.previous.Listeners, e.config.Listeners)
	for _, l := range changed.removed {
		e.drop[format.ListenerName(l.Name)] = true
		e.gone = append(e.gone, l.Name)
	}
	// A listener that is new is compared with nothing. Routes come first, all of them: pages hold their names.
	none := &config.Listener{}
	for _, l := range changed.removed {
		if !slices.ContainsFunc(changed.added, func(a *config.Listener) bool { return a.Name == l.Name }) {
			e.count(l, none)
		}
	}
	for _, l := range changed.added {
		old := before[l.Name]
		if old == nil {
			old = none
		}
		e.count(old, l)
	}
	if err := e.writeRoutes(); err != nil {
		return err
	}
	for _, l := range changed.added {
		if err := e.write(format.ListenerName(l.Name), l); err != nil {
			return err
		}
		old := before[l.Name]
		if old == nil {
			old = none
		}
		if err := e.writePages(old, l); err != nil {
			return err
		}
	}
	for _, l := range changed.removed {
		e.dropPages(l.Name)
	}
	return nil
}

// count notes which routes a listener has gained and lost.
func (e *edit) count(before, after *config.Listener) {
	routes := compare(before.Routes, after.Routes)
	streams := compare(before.Streams, after.Streams)
	for _, r := range routes.removed {
		e.uses[r]--
	}
	for _, r := range streams.removed {
		e.uses[r]--
	}
	for _, r := range routes.added {
		e.use(r)
	}
	for _, r := range streams.added {
		e.use(r)
	}
}

func (e *edit) use(route any) {
	e.uses[route]++
	if e.catalog.routes[route] == nil && e.fresh[route] == nil {
		e.fresh[route] = &attached{}
	}
}

// writeRoutes names and writes the routes that no listener had, and drops those that none has any more.
func (e *edit) writeRoutes() error {
	free := map[string]bool{} // names whose routes are gone
	for route, uses := range e.uses {
		if had := e.catalog.routes[route]; had != nil && had.listeners+uses == 0 {
			free[had.name] = true
			e.drop[had.name] = true
		}
	}
	assigned := map[string]bool{}
	for route, a := range e.fresh {
		if e.uses[route] == 0 {
			continue
		}
		var base string
		switch r := route.(type) {
		case *config.Route:
			base = format.RouteName(r)
		case *config.StreamRoute:
			base = format.StreamRouteName(r)
		}
		// One object is one route as a rule. Should a translator make two of it, the second has a number.
		a.name = base
		for i := 2; assigned[a.name] || e.catalog.taken[a.name] != nil && !free[a.name]; i++ {
			a.name = fmt.Sprintf("%s~%d", base, i)
		}
		assigned[a.name] = true
		a.begins = format.Begins(a.name)
		if err := e.write(a.name, route); err != nil {
			return err
		}
	}
	return nil
}

// writePages cuts a listener's routes into pages and writes those that changed.
func (e *edit) writePages(before, after *config.Listener) error {
	old := e.catalog.listeners[after.Name]
	if old == nil {
		old = &listing{}
	}
	next := &listing{
		routes: list(e, before.Routes, after.Routes, old.routes), streams: list(e, before.Streams, after.Streams, old.streams),
		pages: make(map[string]*page, len(old.pages)),
	}
	e.listeners[after.Name] = next
	all := next.routes
	if len(next.streams) > 0 {
		all = slices.Concat(next.routes, next.streams)
	}
	if len(all) == 0 {
		return nil
	}
	start, first := 0, ""
	for i := 1; i < len(all); i++ {
		if !all[i].begins {
			continue
		}
		if err := e.writePage(after.Name, old, next, first, all[start:i], all[i].name); err != nil {
			return err
		}
		start, first = i, all[i].name
	}
	return e.writePage(after.Name, old, next, first, all[start:], "")
}

func (e *edit) writePage(listener string, old, next *listing, first string, routes []*attached, following string) error {
	if p := old.pages[first]; p != nil && p.next == following && slices.Equal(p.routes, routes) {
		next.pages[first] = p
		return nil
	}
	p := &page{routes: slices.Clone(routes), next: following, resource: format.PageName(listener, first)}
	if next.pages[first] != nil {
		return fmt.Errorf("listener %s has %s twice", listener, first)
	}
	next.pages[first] = p
	names := make([]string, len(routes))
	for i, a := range routes {
		names[i] = a.name
	}
	return e.write(p.resource, &format.Page{Listener: listener, First: first, Routes: names, Next: following})
}

// dropPages drops what a listener, changed or gone, has no more.
func (e *edit) dropPages(listener string) {
	old, next := e.catalog.listeners[listener], e.listeners[listener]
	if old == nil {
		return
	}
	for first, p := range old.pages {
		if next == nil || next.pages[first] == nil {
			e.drop[p.resource] = true
		}
	}
}

// commit makes the edited configuration the one that the next is compared with.
func (e *edit) commit() {
	c := e.catalog
	c.previous = e.config
	for route, uses := range e.uses {
		a := c.routes[route]
		if a == nil {
			a = e.fresh[route]
		}
		if a.listeners += uses; a.listeners > 0 {
			c.routes[route] = a
			c.taken[a.name] = route
			continue
		}
		delete(c.routes, route)
		if c.taken[a.name] == route {
			delete(c.taken, a.name)
		}
	}
	for _, name := range e.gone {
		delete(c.listeners, name)
	}
	for name, l := range e.listeners {
		c.listeners[name] = l
	}
}

// list turns a listener's routes into what is attached, taking over from the list before what did not change.
func list[T any](e *edit, before, after []*T, old []*attached) []*attached {
	head, tail := ends(before, after)
	out := make([]*attached, 0, len(after))
	out = append(out, old[:head]...)
	for _, route := range after[head : len(after)-tail] {
		a := e.catalog.routes[route]
		if a == nil {
			a = e.fresh[route]
		}
		out = append(out, a)
	}
	return append(out, old[len(before)-tail:]...)
}

// difference is what a list of pointers gained and lost.
type difference[T any] struct{ added, removed []*T }

// compare compares lists by the identity of their items. Few items differ as a rule, so it skips the equal ends first.
func compare[T any](before, after []*T) (d difference[T]) {
	head, tail := ends(before, after)
	before, after = before[head:len(before)-tail], after[head:len(after)-tail]
	had := make(map[*T]bool, len(before))
	for _, item := range before {
		had[item] = true
	}
	for _, item := range after {
		if had[item] {
			delete(had, item)
		} else {
			d.added = append(d.added, item)
		}
	}
	for _, item := range before {
		if had[item] {
			d.removed = append(d.removed, item)
		}
	}
	return d
}

// ends returns how many items at the lists' beginnings, and then at their ends, are the same.
func ends[T any](a, b []*T) (head, tail int) {
	most := min(len(a), len(b))
	for head < most && a[head] == b[head] {
		head++
	}
	for tail < most-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	return head, tail
}
