package schema

import (
	"context"
	"embed"
	"fmt"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"gatehouse.dev/gatehouse/controller/apis/v1alpha1"
)

//go:generate go test -run TestEmbeddedDefinitions -update .

// crds are the CustomResourceDefinitions of the experimental channel, byte for byte as the gateway-api module ships them, and those of
// Gatehouse's own that deploy/crds holds.
//
//go:embed crds/*.yaml
var crds embed.FS

const (
	gatewayGroup  = "gateway.networking.k8s.io"
	gatewayXGroup = "gateway.networking.x-k8s.io"
	ownGroup      = "gatehouse.dev"
)

// definition is a kind that a CustomResourceDefinition describes.
type definition struct {
	group, kind string
	// file is the name under crds.
	file string
	// served lists the versions that the definition serves, the preferred one first.
	servedVersions []string
	clusterScoped  bool
	// typed makes an empty object of the Go type; nil for a kind that is not served. All versions of a Gateway API kind have the
	// same fields (their conversion strategy is None), so that one type decodes them all.
	typed func() metav1.Object
	// typedVersion is the API version of that type.
	typedVersion string

	load     func() (*apiextensionsv1.CustomResourceDefinition, error)
	compiled map[string]func() (*compiledVersion, error)
}

// compiledVersion is one version of a definition, ready to be used.
type compiledVersion struct {
	structural *structuralschema.Structural
	validator  crdvalidation.SchemaValidator
	cel        *cel.Validator
}

// definitions is the table of embedded kinds. Compiling one takes up to a second, so each is compiled when it is first needed.
func definitions() []*definition {
	v1 := []string{"v1"}
	list := []*definition{
		{group: gatewayGroup, kind: "GatewayClass", file: "gatewayclasses", servedVersions: []string{"v1", "v1beta1"},
			clusterScoped: true, typedVersion: "v1", typed: func() metav1.Object { return &gatewayv1.GatewayClass{} }},
		{group: gatewayGroup, kind: "Gateway", file: "gateways", servedVersions: []string{"v1", "v1beta1"},
			typedVersion: "v1", typed: func() metav1.Object { return &gatewayv1.Gateway{} }},
		{group: gatewayGroup, kind: "HTTPRoute", file: "httproutes", servedVersions: []string{"v1", "v1beta1"},
			typedVersion: "v1", typed: func() metav1.Object { return &gatewayv1.HTTPRoute{} }},
		{group: gatewayGroup, kind: "ReferenceGrant", file: "referencegrants", servedVersions: []string{"v1", "v1beta1"},
			typedVersion: "v1beta1", typed: func() metav1.Object { return &gatewayv1beta1.ReferenceGrant{} }},
		{group: gatewayXGroup, kind: "XBackend", file: "xbackends", servedVersions: []string{"v1alpha1"},
			typedVersion: "v1alpha1", typed: func() metav1.Object { return &gatewayxv1alpha1.XBackend{} }},

		{group: gatewayGroup, kind: "GRPCRoute", file: "grpcroutes", servedVersions: v1,
			typedVersion: "v1", typed: func() metav1.Object { return &gatewayv1.GRPCRoute{} }},
		{group: gatewayGroup, kind: "TLSRoute", file: "tlsroutes", servedVersions: []string{"v1", "v1alpha2", "v1alpha3"},
			typedVersion: "v1", typed: func() metav1.Object { return &gatewayv1.TLSRoute{} }},
		{group: gatewayGroup, kind: "TCPRoute", file: "tcproutes", servedVersions: []string{"v1", "v1alpha2"},
			typedVersion: "v1", typed: func() metav1.Object { return &gatewayv1.TCPRoute{} }},
		{group: gatewayGroup, kind: "UDPRoute", file: "udproutes", servedVersions: []string{"v1", "v1alpha2"},
			typedVersion: "v1", typed: func() metav1.Object { return &gatewayv1.UDPRoute{} }},
		{group: gatewayGroup, kind: "ListenerSet", file: "listenersets", servedVersions: v1,
			typedVersion: "v1", typed: func() metav1.Object { return &gatewayv1.ListenerSet{} }},
		{group: gatewayGroup, kind: "BackendTLSPolicy", file: "backendtlspolicies", servedVersions: []string{"v1", "v1alpha3"},
			typedVersion: "v1", typed: func() metav1.Object { return &gatewayv1.BackendTLSPolicy{} }},
		{group: gatewayXGroup, kind: "XBackendTrafficPolicy", file: "xbackendtrafficpolicies", servedVersions: []string{"v1alpha1"},
			typedVersion: "v1alpha1", typed: func() metav1.Object { return &gatewayxv1alpha1.XBackendTrafficPolicy{} }},
		{group: gatewayXGroup, kind: "XTelemetryPolicy", file: "xtelemetrypolicies", servedVersions: []string{"v1alpha1"},
			typedVersion: "v1alpha1", typed: func() metav1.Object { return &gatewayxv1alpha1.XTelemetryPolicy{} }},
		{group: ownGroup, kind: "GatewayParameters", file: "gatewayparameters", servedVersions: []string{"v1alpha1"},
			typedVersion: "v1alpha1", typed: func() metav1.Object { return &v1alpha1.GatewayParameters{} }},
		// A mesh's settings say nothing to a gateway.
		{group: gatewayXGroup, kind: "XMesh", file: "xmeshes", servedVersions: []string{"v1alpha1"}, clusterScoped: true},
	}
	for _, d := range list {
		d.file = d.group + "_" + d.file + ".yaml"
		d.load = sync.OnceValues(d.read)
		d.compiled = map[string]func() (*compiledVersion, error){}
		for _, version := range d.servedVersions {
			d.compiled[version] = sync.OnceValues(func() (*compiledVersion, error) { return d.compile(version) })
		}
	}
	return list
}

func (d *definition) versions() []string { return d.servedVersions }
func (d *definition) namespaced() bool   { return !d.clusterScoped }
func (d *definition) served() bool       { return d.typed != nil }

func (d *definition) read() (*apiextensionsv1.CustomResourceDefinition, error) {
	text, err := crds.ReadFile("crds/" + d.file)
	if err != nil {
		return nil, err
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.Unmarshal(text, crd); err != nil {
		return nil, fmt.Errorf("%s: %w", d.file, err)
	}
	return crd, nil
}

func (d *definition) compile(version string) (*compiledVersion, error) {
	crd, err := d.load()
	if err != nil {
		return nil, err
	}
	for _, v := range crd.Spec.Versions {
		if v.Name != version {
			continue
		}
		props := &apiextensions.JSONSchemaProps{}
		if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v.Schema.OpenAPIV3Schema, props, nil); err != nil {
			return nil, fmt.Errorf("%s %s: %w", d.kind, version, err)
		}
		structural, err := structuralschema.NewStructural(props)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", d.kind, version, err)
		}
		// Status is dropped before validation; without its schema there is less to compile.
		delete(structural.Properties, "status")
		validator, _, err := crdvalidation.NewSchemaValidator(props)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", d.kind, version, err)
		}
		return &compiledVersion{structural, validator, cel.NewValidator(structural, true, celconfig.PerCallLimit)}, nil
	}
	return nil, fmt.Errorf("%s has no version %s", d.file, version)
}

func (d *definition) validate(ctx context.Context, h Header, raw []byte) (metav1.Object, []Error) {
	once, ok := d.compiled[h.Version()]
	if !ok {
		return nil, []Error{{Field: "apiVersion", Message: fmt.Sprintf("no matches for kind %q in version %q", h.Kind, h.APIVersion)}}
	}
	c, err := once()
	if err != nil {
		return nil, []Error{{Message: "schema does not compile: " + oneLine(err.Error())}}
	}
	object := map[string]any{}
	strict, err := kjson.UnmarshalStrict(raw, &object, kjson.DisallowDuplicateFields)
	if err != nil {
		return nil, []Error{{Message: oneLine(err.Error())}}
	}
	var errs []Error
	for _, e := range strict {
		errs = append(errs, strictErrors([]string{e.Error()})...)
	}
	delete(object, "status")

	meta, unknown, err := c.coerce(object)
	if err != nil {
		return nil, append(errs, Error{Field: "metadata", Message: oneLine(err.Error())})
	}
	errs = append(errs, strictErrors(unknown)...)
	clean(meta, d.namespaced())
	if err := objectmeta.SetObjectMeta(object, meta); err != nil {
		return nil, append(errs, Error{Field: "metadata", Message: oneLine(err.Error())})
	}
	errs = append(errs, fieldErrors(c.check(ctx, object, meta, d.namespaced()))...)
	if len(errs) > 0 || d.typed == nil {
		return nil, errs
	}
	object["apiVersion"] = d.group + "/" + d.typedVersion
	typed := d.typed()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object, typed); err != nil {
		return nil, []Error{{Message: oneLine(err.Error())}}
	}
	return typed, nil
}

// coerce prunes what the schema does not know and fills in defaults, as a server does while it decodes. It returns the object's
// metadata and the strict decoding errors.
func (c *compiledVersion) coerce(object map[string]any) (*metav1.ObjectMeta, []string, error) {
	meta, _, unknown, err := objectmeta.GetObjectMetaWithOptions(object, objectmeta.ObjectMetaOptions{ReturnUnknownFieldPaths: true})
	if err != nil {
		return nil, nil, err
	}
	if meta == nil {
		meta = &metav1.ObjectMeta{}
	}
	unknown = append(unknown, pruning.PruneWithOptions(object, c.structural, true,
		structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})...)
	defaulting.PruneNonNullableNullsWithoutDefaults(object, c.structural)
	fieldErr, paths := objectmeta.CoerceWithOptions(nil, object, c.structural, false,
		objectmeta.CoerceOptions{ReturnUnknownFieldPaths: true})
	if fieldErr != nil {
		return nil, nil, fieldErr
	}
	defaulting.Default(object, c.structural)
	unknown = append(unknown, paths...)
	for i, path := range unknown {
		unknown[i] = fmt.Sprintf("unknown field %q", path)
	}
	return meta, unknown, nil
}

// check runs the validation of the server's create strategy for custom resources, in its order.
func (c *compiledVersion) check(ctx context.Context, object map[string]any, meta *metav1.ObjectMeta, namespaced bool) field.ErrorList {
	errs := generatedName(meta)
	if len(errs) == 0 {
		errs = validation.ValidateObjectMeta(meta, namespaced, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	}
	errs = append(errs, crdvalidation.ValidateCustomResource(nil, object, c.validator)...)
	errs = append(errs, objectmeta.Validate(ctx, nil, object, c.structural, false)...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, c.structural, object)...)
	if c.cel == nil || blocksRules(errs) {
		return errs
	}
	ruleErrs, _ := c.cel.Validate(ctx, nil, c.structural, object, nil, celconfig.RuntimeCELCostBudget)
	return append(errs, ruleErrs...)
}

// blocksRules reports whether a server would skip the x-kubernetes-validations rules: they count on a well-formed object.
func blocksRules(errs field.ErrorList) bool {
	for _, e := range errs {
		switch e.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			return true
		}
	}
	return false
}
