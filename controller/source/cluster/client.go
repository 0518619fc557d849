package cluster

import (
	"context"
	"fmt"
	"log/slog"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	clientmetadata "k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// client reads one kind in one version, whatever its Go type: the version's objects decode into the type that States hold, because a
// scheme of its own says so. That is one function for twenty kinds where generated clients would be twenty packages, and it reads an
// older version (TCPRoute v1alpha2) into the type of the newer one.
type client struct {
	kind   *kind
	gvr    schema.GroupVersionResource
	rest   rest.Interface
	params runtime.ParameterCodec
	meta   clientmetadata.Interface // in place of rest, when the metadata is enough
}

// connections returns what makes clients for kinds, and a client for discovery. All of them share their connections.
func connections(config *rest.Config, logger *slog.Logger) (func(k *kind, version string) (*client, error), *discovery.DiscoveryClient, error) {
	shared, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, nil, err
	}
	d, err := discovery.NewDiscoveryClientForConfigAndClient(config, shared)
	if err != nil {
		return nil, nil, err
	}
	return func(k *kind, version string) (*client, error) {
		gv := schema.GroupVersion{Group: k.group, Version: version}
		c := &client{kind: k, gvr: gv.WithResource(k.resource)}
		var err error
		if k.scope == metadata {
			c.meta, err = clientmetadata.NewForConfigAndClient(config, shared)
			return c, err
		}
		scheme := runtime.NewScheme()
		k.register(scheme, gv)
		metav1.AddToGroupVersion(scheme, gv)
		c.params = runtime.NewParameterCodec(scheme)
		own := configOf(config, scheme, gv)
		own.NegotiatedSerializer = tolerant{own.NegotiatedSerializer, gv.WithKind(k.name), logger}
		c.rest, err = rest.RESTClientForConfigAndClient(own, shared)
		return c, err
	}, d, nil
}

// configOf returns the settings of a client for one version, whose types the scheme knows.
func configOf(config *rest.Config, scheme *runtime.Scheme, gv schema.GroupVersion) *rest.Config {
	own := rest.CopyConfig(config)
	own.GroupVersion, own.APIPath = &gv, "/apis"
	if gv.Group == "" {
		own.APIPath = "/api"
	}
	own.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	own.ContentType = runtime.ContentTypeJSON
	// Custom resources come as JSON, core kinds as protobuf, which costs a fraction to decode.
	own.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	return own
}

// list and watch read all objects that o selects, or those of a namespace.
func (c *client) list(ctx context.Context, namespace string, o metav1.ListOptions) (runtime.Object, error) {
	if c.meta != nil {
		return c.meta.Resource(c.gvr).Namespace(namespace).List(ctx, o)
	}
	return c.rest.Get().NamespaceIfScoped(namespace, namespace != "").Resource(c.gvr.Resource).VersionedParams(&o, c.params).Do(ctx).Get()
}

func (c *client) watch(ctx context.Context, namespace string, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	if c.meta != nil {
		return c.meta.Resource(c.gvr).Namespace(namespace).Watch(ctx, o)
	}
	return c.rest.Get().NamespaceIfScoped(namespace, namespace != "").Resource(c.gvr.Resource).VersionedParams(&o, c.params).Watch(ctx)
}

// get reads one object.
func (c *client) get(ctx context.Context, key types.NamespacedName) (metav1.Object, error) {
	return object(c.rest.Get().NamespaceIfScoped(key.Namespace, key.Namespace != "").Resource(c.gvr.Resource).Name(key.Name).Do(ctx))
}

// patchStatus merges into the status of one object and returns what became of it.
func (c *client) patchStatus(ctx context.Context, key types.NamespacedName, patch []byte) (metav1.Object, error) {
	return object(c.rest.Patch(types.MergePatchType).NamespaceIfScoped(key.Namespace, key.Namespace != "").Resource(c.gvr.Resource).
		Name(key.Name).SubResource("status").Param("fieldManager", FieldManager).Body(patch).Do(ctx))
}

func object(r rest.Result) (metav1.Object, error) {
	got, err := r.Get()
	if err != nil {
		return nil, err
	}
	o, ok := got.(metav1.Object)
	if !ok {
		return nil, fmt.Errorf("the API server answered with %T", got)
	}
	o.SetManagedFields(nil)
	return o, nil
}
