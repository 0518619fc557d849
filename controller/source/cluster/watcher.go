package cluster

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"gatehouse.dev/gatehouse/controller/source"
)

// watchKey names a watch: a whole kind, or one object of it.
type watchKey struct {
	kind   string
	object types.NamespacedName
}

// watcher is one running watch. Source.mu guards its fields.
type watcher struct {
	source *Source
	key    watchKey
	client *client
	cancel context.CancelFunc
	since  time.Time
	// late says that it began after the first State: others wait for it no longer than patience.
	late   bool
	synced bool
	// failure is the error of the last request, "" when it succeeded. said is what the log has been told.
	failure, said string
	// forbidden says that the failure is a missing right.
	forbidden bool
}

// start begins a watch that does not run yet. s.mu is held.
func (s *Source) start(key watchKey, c *client, late bool) {
	if s.ctx == nil || s.watchers[key] != nil {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	w := &watcher{source: s, key: key, client: c, cancel: cancel, since: time.Now(), late: late}
	s.watchers[key] = w
	reflector := cache.NewReflectorWithOptions(&cache.ListWatch{ListWithContextFunc: w.list, WatchFuncWithContext: w.watch}, nil, w,
		cache.ReflectorOptions{
			Name:            "gatehouse " + key.kind,
			TypeDescription: key.kind,
			Backoff:         &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 8, Cap: 15 * time.Second},
		})
	s.running.Go(func() { reflector.RunWithContext(ctx) })
}

// stop ends a watch, if it runs. Its objects stay. s.mu is held.
func (s *Source) stop(key watchKey) {
	if w := s.watchers[key]; w != nil {
		w.cancel()
		delete(s.watchers, key)
	}
}

func (w *watcher) options(o metav1.ListOptions) metav1.ListOptions {
	if w.key.object.Name != "" {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", w.key.object.Name).String()
	}
	return o
}

func (w *watcher) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	list, err := w.client.list(ctx, w.key.object.Namespace, w.options(o))
	w.note(ctx, err)
	return list, err
}

func (w *watcher) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	events, err := w.client.watch(ctx, w.key.object.Namespace, w.options(o))
	if o.SendInitialEvents != nil && err != nil {
		return events, err // an API server without watch-list: the reflector lists instead
	}
	w.note(ctx, err)
	return events, err
}

// note remembers how the last request went, and logs when that is news.
func (w *watcher) note(ctx context.Context, err error) {
	if ctx.Err() != nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return // the end, or a watch that begins anew
	}
	w.source.mu.Lock()
	defer w.source.mu.Unlock()
	w.failure, w.forbidden = "", err != nil && apierrors.IsForbidden(err)
	if w.forbidden && !w.synced {
		w.source.poke() // it is waited for no longer
	}
	if err != nil {
		w.failure = err.Error()
	}
	switch {
	case w.failure == w.said:
	case err != nil:
		w.source.opts.Logger.Warn("cannot read from the API server; the objects last read stay in use", "kind", w.key.kind,
			"object", w.key.object.String(), "error", err)
	default:
		w.source.opts.Logger.Info("reading from the API server again", "kind", w.key.kind, "object", w.key.object.String())
	}
	w.said = w.failure
	if err != nil && !w.synced && w.client.kind.optional && apierrors.IsForbidden(err) {
		w.synced = true // counts as absent
		w.source.poke()
	}
}

// table returns the table to write to, locked, or nil when the watch has ended meanwhile.
func (w *watcher) table() *table {
	w.source.mu.Lock()
	if w.source.watchers[w.key] != w {
		w.source.mu.Unlock()
		return nil
	}
	return w.source.tables[w.key.kind]
}

// done unlocks, wakes the Source when t changed, and tells of objects that were written.
func (w *watcher) done(t *table, written ...types.NamespacedName) {
	if t.changed || !w.synced {
		w.source.poke()
	}
	w.source.mu.Unlock()
	if t.kind.hasStatus {
		for _, key := range written {
			w.source.opts.OnStatus(source.Ref{Kind: t.kind.name, Namespace: key.Namespace, Name: key.Name})
		}
	}
}

// Add, Update, Delete, Replace and Resync are what the reflector calls.
func (w *watcher) Add(object any) error { return w.Update(object) }

// Update takes in a new version of an object.
func (w *watcher) Update(object any) error {
	if t := w.table(); t != nil {
		key, ok := t.put(object)
		if ok {
			w.done(t, key)
		} else {
			w.done(t)
		}
	}
	return nil
}

// Delete takes an object out.
func (w *watcher) Delete(object any) error {
	if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = gone.Obj
	}
	o, ok := object.(metav1.Object)
	if !ok {
		return nil
	}
	if t := w.table(); t != nil {
		t.remove(types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()})
		w.done(t)
	}
	return nil
}

// Replace takes in all objects of the watch.
func (w *watcher) Replace(list []any, _ string) error {
	t := w.table()
	if t == nil {
		return nil
	}
	kept := make(map[types.NamespacedName]bool, len(list))
	written := make([]types.NamespacedName, 0, len(list))
	for _, o := range list {
		key, ok := t.put(o)
		kept[key] = true // one that cannot be read stays as it was
		if ok {
			written = append(written, key)
		}
	}
	for key := range t.objects {
		if !kept[key] && (w.key.object.Name == "" || w.key.object == key) {
			t.remove(key)
		}
	}
	w.source.poke()
	w.synced = true
	w.done(t, written...)
	return nil
}

// Resync does nothing: what is held is what was read.
func (w *watcher) Resync() error { return nil }

// table holds the objects of one kind. Source.mu guards it.
type table struct {
	kind    *kind
	objects map[types.NamespacedName]entry
	// changed says that what is shown differs from the last State.
	changed bool
}

// entry is an object: as States show it, and, of kinds with a status to write, as it is.
type entry struct {
	shown, full metav1.Object
}

func newTable(k *kind) *table { return &table{kind: k, objects: map[types.NamespacedName]entry{}} }

// put takes in an object and returns its name, and whether it could. What is shown of it stays the same pointer when nothing of that changed.
func (t *table) put(object any) (types.NamespacedName, bool) {
	full, ok := object.(metav1.Object)
	if !ok {
		return types.NamespacedName{}, false
	}
	full.SetManagedFields(nil)
	raw, ok := object.(runtime.Object)
	if !ok {
		return types.NamespacedName{}, false
	}
	key := types.NamespacedName{Namespace: full.GetNamespace(), Name: full.GetName()}
	e := entry{shown: t.kind.reduce(raw)}
	if e.shown == nil {
		return key, false
	}
	if t.kind.hasStatus {
		e.full = full
	}
	if before, ok := t.objects[key]; ok && same(before.shown, e.shown) {
		e.shown = before.shown
	} else {
		t.changed = true
	}
	t.objects[key] = e
	return key, true
}

func (t *table) remove(key types.NamespacedName) {
	if _, ok := t.objects[key]; ok {
		delete(t.objects, key)
		t.changed = true
	}
}

func (t *table) clear() {
	if len(t.objects) > 0 {
		t.objects, t.changed = map[types.NamespacedName]entry{}, true
	}
}

// shown returns what a State shows.
func (t *table) shown() []metav1.Object {
	out := make([]metav1.Object, 0, len(t.objects))
	for _, e := range t.objects {
		out = append(out, e.shown)
	}
	return out
}

// selectsPods reports whether an XBackend takes its endpoints from Pods.
func selectsPods(o metav1.Object) bool {
	b, ok := o.(*gatewayxv1alpha1.XBackend)
	return ok && b.Spec.EndpointSelector != nil
}
