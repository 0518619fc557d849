package provision

import (
	"context"
	"errors"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"gatehouse.dev/gatehouse/controller/plan"
)

// sync makes the objects of a Gateway what they should be and notes what the cluster says of it.
func (p *Provisioner) sync(ctx context.Context, key string) error {
	p.mu.Lock()
	g, isWanted := p.gateways[key]
	known, isKept := p.known, p.kept[key]
	s := settings{
		controller: p.o.ControllerName, image: p.o.Image, address: p.o.ControllerAddress, serverName: p.o.ServerName, ca: p.ca,
	}
	p.mu.Unlock()

	var err error
	switch {
	case !known:
		return nil
	case isWanted:
		err = p.provide(ctx, key, &g, &s)
	case isKept:
		_, name, _ := strings.Cut(key, "/")
		err = p.removeOthers(ctx, key, []wanted{{kind: kindService, name: objectName(name)}})
	default:
		err = p.removeOthers(ctx, key, nil)
	}
	p.note(key, err)
	return err
}

// provide makes and changes a Gateway's objects, and removes those that it should have no longer. One that cannot be written does not keep the
// others from being written.
func (p *Provisioner) provide(ctx context.Context, key string, g *plan.Gateway, s *settings) error {
	if len(s.ca) == 0 {
		return errors.New("the controller has no CA yet, without which proxies cannot verify it")
	}
	list, err := objects(g, s)
	if err != nil {
		return err
	}
	var failed []error
	for _, w := range list {
		if err := p.ensure(ctx, key, g, w); err != nil {
			failed = append(failed, err)
		}
	}
	if len(g.Ports) == 0 {
		// The Service stays as it is; see objects.
		list = append(list, wanted{kind: kindService, name: objectName(g.Origin.Name)})
	}
	failed = append(failed, p.removeOthers(ctx, key, list))
	return errors.Join(failed...)
}

// taken is the error of an object whose name we need and that is not ours.
type taken struct {
	kind kindName
	name types.NamespacedName
}

func (t *taken) Error() string {
	return fmt.Sprintf("%s %s exists and was not made for this Gateway: delete it, or give the Gateway another name", t.kind, t.name)
}

// ensure makes one object what it should be.
func (p *Provisioner) ensure(ctx context.Context, key string, g *plan.Gateway, w wanted) error {
	k, at := p.kind(w.kind), types.NamespacedName{Namespace: g.Origin.Namespace, Name: w.name}
	live := k.stored(at.Namespace, at.Name)
	if live == nil {
		// Not made yet, made a moment ago, or not ours: the informers see only what has our label.
		found, err := k.get(ctx, at.Namespace, at.Name)
		switch {
		case err == nil:
			live = found
		case !apierrors.IsNotFound(err):
			return fmt.Errorf("reading %s %s: %w", w.kind, at, err)
		}
	}
	var uid types.UID
	if live != nil {
		if !p.isOurs(live, key) {
			return &taken{w.kind, at}
		}
		if live.GetDeletionTimestamp() != nil {
			return fmt.Errorf("%s %s is being deleted; it is made again when it is gone", w.kind, at)
		}
		ours, err := k.ours(live, p.o.ControllerName)
		if err != nil {
			return fmt.Errorf("reading %s %s: its field management is not understood: %w", w.kind, at, err)
		}
		if sameConfig(ours, w.config) {
			return nil
		}
		uid = live.GetUID()
	}
	options := metav1.ApplyOptions{FieldManager: p.o.ControllerName, Force: true}
	if err := k.apply(ctx, at.Namespace, w.config, uid, options); err != nil {
		return fmt.Errorf("writing %s %s: %w", w.kind, at, err)
	}
	p.o.Logger.Info("wrote an object of a Gateway", "gateway", key, "kind", string(w.kind), "name", at.Name, "new", live == nil)
	return nil
}

// sameConfig compares apply configurations by meaning: quantities by what they amount to, no list as an empty one.
func sameConfig(a, b any) bool { return equality.Semantic.DeepEqual(a, b) }

// removeOthers deletes a Gateway's objects that are not in the list.
func (p *Provisioner) removeOthers(ctx context.Context, key string, list []wanted) error {
	var failed []error
	for _, k := range p.kinds {
		for _, o := range k.of(key) {
			if isListed(list, k.name, o.GetName()) || o.GetDeletionTimestamp() != nil || !p.isMade(o) {
				continue
			}
			// The object as it was seen and no other: it may have changed hands meanwhile.
			uid, version, background := o.GetUID(), o.GetResourceVersion(), metav1.DeletePropagationBackground
			err := k.remove(ctx, o.GetNamespace(), o.GetName(), metav1.DeleteOptions{
				Preconditions:     &metav1.Preconditions{UID: &uid, ResourceVersion: &version},
				PropagationPolicy: &background,
			})
			switch {
			case err == nil:
				p.o.Logger.Info("removed an object that is no longer wanted", "gateway", key, "kind", string(k.name), "name", o.GetName())
			case !apierrors.IsNotFound(err):
				failed = append(failed, fmt.Errorf("removing %s %s/%s: %w", k.name, o.GetNamespace(), o.GetName(), err))
			}
		}
	}
	return errors.Join(failed...)
}

func isListed(list []wanted, kind kindName, name string) bool {
	for _, w := range list {
		if w.kind == kind && w.name == name {
			return true
		}
	}
	return false
}

// isOurs reports whether an object is this controller's for a Gateway: the Gateway owns it, and it has our label or fields that we applied. One
// of both is enough, so that an object that somebody took the label from is repaired.
func (p *Provisioner) isOurs(o metav1.Object, gateway string) bool {
	name, ok := gatewayOf(o)
	return ok && o.GetNamespace()+"/"+name == gateway && (p.hasLabel(o) || p.hasFields(o))
}

// isMade reports whether an object, whose owner is a Gateway, was made by this controller without any doubt, so that it may be removed.
func (p *Provisioner) isMade(o metav1.Object) bool { return p.hasLabel(o) && p.hasFields(o) }

func (p *Provisioner) hasLabel(o metav1.Object) bool {
	return o.GetLabels()[managedByLabel] == managedBy(p.o.ControllerName)
}

func (p *Provisioner) hasFields(o metav1.Object) bool {
	for _, m := range o.GetManagedFields() {
		if m.Manager == p.o.ControllerName && m.Operation == metav1.ManagedFieldsOperationApply && m.Subresource == "" {
			return true
		}
	}
	return false
}

// ownedBy reports whether the controlling owner has that UID.
func ownedBy(o metav1.Object, uid string) bool {
	owner := metav1.GetControllerOfNoCopy(o)
	return owner != nil && string(owner.UID) == uid
}

// note keeps the problem of a Gateway and what the cluster says of it, and tells when that is another than before.
func (p *Provisioner) note(key string, err error) {
	p.mu.Lock()
	g, isWanted := p.gateways[key]
	if !isWanted {
		_, was := p.observed[key]
		delete(p.observed, key)
		delete(p.problems, key)
		p.mu.Unlock()
		if was {
			p.o.OnChange(key)
		}
		return
	}
	switch {
	case err == nil:
		delete(p.problems, key)
	case lasts(err) || p.queue.NumRequeues(key) >= patience:
		p.problems[key] = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	problem := p.problems[key]
	p.mu.Unlock()

	// Only this worker has this key now, so nobody else notes it meanwhile.
	name := objectName(g.Origin.Name)
	service, _ := p.seen(kindService, key, g.Origin.Namespace, name).(*corev1.Service)
	deployment, _ := p.seen(kindDeployment, key, g.Origin.Namespace, name).(*appsv1.Deployment)
	now := observe(service, deployment, problem)

	p.mu.Lock()
	before, was := p.observed[key]
	p.observed[key] = now
	p.mu.Unlock()
	if !was || !before.equal(now) {
		p.o.OnChange(key)
	}
}

// seen returns an object of a Gateway that is in the informer's store and ours, or nil.
func (p *Provisioner) seen(name kindName, key, namespace, objectName string) metav1.Object {
	if o := p.kind(name).stored(namespace, objectName); o != nil && p.isOurs(o, key) {
		return o
	}
	return nil
}

// lasts reports whether an error stays until somebody changes something. Others are tried again some times before anybody is told.
func lasts(err error) bool {
	var t *taken
	return errors.As(err, &t) || apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsBadRequest(err)
}
