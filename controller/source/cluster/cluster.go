// Package cluster is the source of objects in a Kubernetes cluster: it watches every kind that a source.State holds and reports a new
// State when something that matters changed.
//
//	API server -> one reflector a kind (client-go) -> table (what is shown of each object) -> State, batches of changes
//	                                                   \-> Current: the objects as they are, for whoever writes their status
//
// What is watched is the least that serves: of Namespaces the metadata only, Pods only while a backend selects them, Secrets and
// ConfigMaps only those that somebody was permitted to refer to (Want). What is shown is less: no managed fields, no status, no resource
// version, so that a write which changes none of the rest, above all the controller's own status writes, makes no new State.
//
// It knows nothing of what objects mean, save which of them need Pods.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	"gatehouse.dev/gatehouse/controller/source"
	"gatehouse.dev/gatehouse/gateway/config"
)

// FieldManager is the name under which the controller writes.
const FieldManager = "gatehouse.dev/controller"

const (
	// batch is how long changes gather after a State was reported. The first change after a quiet time is reported at once.
	batch = 25 * time.Millisecond
	// patience is how long a State is held back for objects that were asked for and are not known yet.
	patience = 2 * time.Second
	// firstPatience is that until all that was asked for was known once. Proxies go on with what they run while a new leader reads: a plan
	// without the Secrets that a busy API server has not shown yet would close their listeners.
	firstPatience = 30 * time.Second
)

// Options are what a Source needs.
type Options struct {
	// Config says how the API server is reached. Its client-side rate limit should be off: the source makes few requests, all of them needed.
	Config *rest.Config
	Logger *slog.Logger
	// OnStatus is told of objects whose kind has a status that the controller writes, whenever one of them was written by anybody. It is
	// called from the goroutines that watch and must not block. It may be nil.
	OnStatus func(source.Ref)
	// DiscoverEvery is how often new kinds are looked for; 0 means every 10 s.
	DiscoverEvery time.Duration
}

// Source watches a cluster. Its methods are safe for concurrent use; Watch is called once.
type Source struct {
	opts      Options
	connect   func(k *kind, version string) (*client, error)
	discovery discovery.ServerResourcesInterfaceWithContext
	wake      chan struct{} // has room for one: something changed

	mu       sync.Mutex // guards what follows
	ctx      context.Context
	running  sync.WaitGroup
	tables   map[string]*table
	watchers map[watchKey]*watcher
	clients  map[string]*client
	// gone counts, by kind, how often in a row the API server did not know a kind that it served before.
	gone       map[string]int
	discovered bool
	wanted     map[source.Ref]bool
	// complete says that all that was wanted was known once.
	complete bool
	// held is since when Want has asked for more time; zero when it has not.
	held time.Time
	// owed says that somebody waits for a State although no object may have changed.
	owed  bool
	state *source.State
}

// New returns a Source. It makes no request before Watch.
func New(o Options) (*Source, error) {
	if o.OnStatus == nil {
		o.OnStatus = func(source.Ref) {}
	}
	if o.DiscoverEvery == 0 {
		o.DiscoverEvery = discoverEvery
	}
	connect, d, err := connections(o.Config, o.Logger)
	if err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	s := &Source{
		opts: o, connect: connect, discovery: d, wake: make(chan struct{}, 1),
		tables: map[string]*table{}, watchers: map[watchKey]*watcher{}, clients: map[string]*client{}, gone: map[string]int{},
		wanted: map[source.Ref]bool{},
	}
	for _, k := range kinds {
		s.tables[k.name] = newTable(k)
	}
	return s, nil
}

// Watch reports the state once everything is known, and after each change, until ctx ends. What cannot be read is logged and tried again;
// meanwhile the last known objects stay.
func (s *Source) Watch(ctx context.Context, changed func(*source.State)) error {
	ctx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	if s.ctx != nil {
		s.mu.Unlock()
		cancel()
		return errors.New("the cluster is watched already")
	}
	s.ctx = ctx
	s.mu.Unlock()
	defer s.running.Wait()
	defer cancel()
	s.running.Go(func() { s.discover(ctx) })
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		case <-timer.C:
		}
		state, again := s.next(time.Now())
		if state == nil {
			if again > 0 {
				timer.Reset(again)
			}
			continue
		}
		changed(state)
		timer.Reset(batch)
		select { // changes gather: the wake-up waits in its channel
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// poke wakes Watch up.
func (s *Source) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// next returns a State when there is a new one to report. Otherwise again is when to ask once more; 0 for at the next change.
func (s *Source) next(now time.Time) (state *source.State, again time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.discovered {
		return nil, 0
	}
	s.watchPods()
	for _, w := range s.watchers {
		if w.synced {
			continue
		}
		if !w.late {
			return nil, 0 // a kind whose objects are not known yet: its watcher will wake us
		}
		left := s.patience(w) - now.Sub(w.since)
		if left <= 0 {
			continue
		}
		if again == 0 || left < again {
			again = left
		}
	}
	if again > 0 {
		return nil, again
	}
	if s.state == nil {
		s.state, s.owed = source.NewState(), true
	}
	var next *source.State
	for _, t := range s.tables {
		if !t.changed {
			continue
		}
		if next == nil {
			copied := *s.state
			next = &copied
			next.Revisions = cloneRevisions(s.state.Revisions)
		}
		if err := next.Replace(t.kind.name, t.shown()); err != nil {
			s.opts.Logger.Error("an object of a kind cannot be held", "kind", t.kind.name, "error", err)
		}
		t.changed = false
	}
	switch {
	case next != nil:
		s.state = next
	case !s.owed:
		return nil, 0
	}
	s.owed = false
	return s.state, 0
}

func cloneRevisions(m map[string]uint64) map[string]uint64 {
	out := make(map[string]uint64, len(m)+1)
	for k, v := range m {
		out[k] = v
	}
	return out
}

// Want says which Secrets and ConfigMaps are read: these and no other. It returns whether all of them are known, that is, read or known
// to be missing. When it returns false, a State will be reported once they are, or after 2 s (30 s at first) without those that do not
// answer.
//
// Each object is watched by a request of its own that names it. A watch on a whole namespace would be one request for many objects,
// but it would show every Secret of that namespace, which nobody permitted; and kubelets watch the Secrets of their Pods in the same way,
// so API servers are built for it.
func (s *Source) Want(refs []config.Origin) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[source.Ref]bool, len(refs))
	for _, o := range refs {
		if k := find(o.Kind); k != nil && k.scope == named {
			next[source.Ref{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}] = true
		}
	}
	for ref := range s.wanted {
		if !next[ref] {
			s.stop(watchKey{ref.Kind, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}})
			s.tables[ref.Kind].remove(types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name})
		}
	}
	s.wanted = next
	s.watchWanted()
	return s.settled(time.Now())
}

// settled says whether what is wanted is known, or was waited for long enough. Not only each object is waited for no longer than patience:
// somebody who refers to another new one all the time must not hold back what others changed. s.mu is held.
func (s *Source) settled(now time.Time) bool {
	longest := firstPatience
	if s.complete {
		longest = patience
	}
	if !s.held.IsZero() && now.Sub(s.held) >= longest {
		s.complete, s.held = true, time.Time{}
		return true
	}
	for key, w := range s.watchers {
		if key.object.Name != "" && !w.synced && now.Sub(w.since) < s.patience(w) {
			if s.held.IsZero() {
				s.held = now
			}
			s.owed = true
			s.poke()
			return false
		}
	}
	s.complete, s.held = true, time.Time{}
	return true
}

// patience is how long a watch is waited for. One that the API server forbids will not come soon. s.mu is held.
func (s *Source) patience(w *watcher) time.Duration {
	if s.complete || w.forbidden || w.key.object.Name == "" {
		return patience
	}
	return firstPatience
}

// watchWanted starts what is wanted and not watched yet. s.mu is held.
func (s *Source) watchWanted() {
	for ref := range s.wanted {
		if c := s.clients[ref.Kind]; c != nil {
			s.start(watchKey{ref.Kind, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}}, c, s.discovered)
		}
	}
}

// watchPods watches Pods while a backend selects its endpoints among them. s.mu is held.
func (s *Source) watchPods() {
	selects := false
	for _, e := range s.tables["XBackend"].objects {
		if selectsPods(e.shown) {
			selects = true
			break
		}
	}
	key := watchKey{kind: "Pod"}
	_, watched := s.watchers[key]
	switch c := s.clients["Pod"]; {
	case selects && !watched && c != nil:
		s.start(key, c, true)
	case !selects && watched:
		s.stop(key)
		s.tables["Pod"].clear()
	}
}

// discover follows which kinds the API server serves.
func (s *Source) discover(ctx context.Context) {
	ticker := time.NewTicker(s.opts.DiscoverEvery)
	defer ticker.Stop()
	said := ""
	for {
		versions, unknown := served(ctx, s.discovery)
		if ctx.Err() != nil {
			return
		}
		said = s.report(said, versions, unknown)
		s.follow(versions, unknown)
		wait := ticker.C
		if !s.isDiscovered() {
			wait = time.After(time.Second) // nothing works before
		}
		select {
		case <-ctx.Done():
			return
		case <-wait:
		}
	}
}

func (s *Source) isDiscovered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.discovered
}

// report logs what discovery found when that is news, and returns what it said.
func (s *Source) report(before string, versions map[string]string, unknown map[string]error) string {
	var absent, failed []string
	for _, k := range kinds {
		switch err := unknown[k.name]; {
		case err != nil:
			failed = append(failed, k.name+": "+err.Error())
		case versions[k.name] == "":
			absent = append(absent, k.name)
		}
	}
	now := strings.Join(slices.Concat(absent, failed), "\n")
	if now == before {
		return before
	}
	if len(failed) > 0 {
		s.opts.Logger.Warn("the API server does not say whether it serves some kinds; asking again", "kinds", failed)
	}
	s.opts.Logger.Info("kinds that the API server does not serve, which are empty until it does", "kinds", absent)
	return now
}

// follow starts to watch what became served and stops what is no longer.
func (s *Source) follow(versions map[string]string, unknown map[string]error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range kinds {
		if unknown[k.name] != nil {
			continue
		}
		version := versions[k.name]
		before := s.clients[k.name]
		if version == "" {
			s.gone[k.name]++
			if before != nil && s.gone[k.name] > 1 { // once may be an API server that restarts
				s.forget(k)
			}
			continue
		}
		s.gone[k.name] = 0
		if before != nil && before.gvr.Version == version {
			continue
		}
		c, err := s.connect(k, version)
		if err != nil {
			s.opts.Logger.Error("a kind cannot be read", "kind", k.name, "error", err)
			continue
		}
		s.clients[k.name] = c
		if k.scope == all || k.scope == metadata {
			key := watchKey{kind: k.name}
			s.stop(key) // of another version; its objects stay until the new watch knows better
			s.start(key, c, s.discovered)
		}
	}
	if len(unknown) == 0 {
		s.discovered = true
	}
	s.watchWanted()
	s.poke()
}

// forget drops a kind that the API server no longer serves. s.mu is held.
func (s *Source) forget(k *kind) {
	for key := range s.watchers {
		if key.kind == k.name {
			s.stop(key)
		}
	}
	delete(s.clients, k.name)
	s.tables[k.name].clear()
	s.opts.Logger.Info("a kind is no longer served", "kind", k.name)
}

// Waiting says which kinds are not known yet, and why; nil when the first State was reported.
func (s *Source) Waiting() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != nil {
		return nil
	}
	if !s.discovered {
		return errors.New("the API server has not said yet which kinds it serves")
	}
	var list []string
	for key, w := range s.watchers {
		if !w.synced {
			text := key.kind
			if w.failure != "" {
				text += " (" + w.failure + ")"
			}
			list = append(list, text)
		}
	}
	slices.Sort(list)
	return fmt.Errorf("not read yet: %s", strings.Join(list, ", "))
}

// Counts returns how many objects of each kind are held.
func (s *Source) Counts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]int, len(s.tables))
	for name, t := range s.tables {
		out[name] = len(t.objects)
	}
	return out
}

// Current returns an object as the cluster last reported it, with its status, or nil. It must not be changed. Only kinds whose status the
// controller writes are kept in full.
func (s *Source) Current(ref source.Ref) metav1.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tables[ref.Kind]
	if t == nil {
		return nil
	}
	return t.objects[types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}].full
}

// Refs returns the names of all objects whose status the controller writes.
func (s *Source) Refs() []source.Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []source.Ref
	for _, k := range kinds {
		if k.hasStatus {
			for key := range s.tables[k.name].objects {
				out = append(out, source.Ref{Kind: k.name, Namespace: key.Namespace, Name: key.Name})
			}
		}
	}
	return out
}

// Fresh reads an object from the API server. It returns nil for one that does not exist.
func (s *Source) Fresh(ctx context.Context, ref source.Ref) (metav1.Object, error) {
	c, err := s.client(ref)
	if err != nil {
		return nil, err
	}
	o, err := c.get(ctx, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return o, err
}

// PatchStatus merges a JSON merge patch (RFC 7396) into an object's status and returns the object. A metadata.resourceVersion in the
// patch makes it fail with a conflict when the object was written since.
func (s *Source) PatchStatus(ctx context.Context, ref source.Ref, patch []byte) (metav1.Object, error) {
	c, err := s.client(ref)
	if err != nil {
		return nil, err
	}
	return c.patchStatus(ctx, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, patch)
}

func (s *Source) client(ref source.Ref) (*client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[ref.Kind]
	if c == nil || c.rest == nil {
		return nil, fmt.Errorf("the API server does not serve kind %s", ref.Kind)
	}
	return c, nil
}
