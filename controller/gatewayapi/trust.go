package gatewayapi

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// caKey is where a ConfigMap or Secret holds CAs (Gateway API: BackendTLSPolicyValidation.caCertificateRefs).
const caKey = "ca.crt"

// maxCAs bounds, in bytes of PEM, the CAs that one object trusts: some seven hundred certificates, thrice what a system has. They travel with each
// cluster or listener, of which one that is larger than a proxy takes would keep a Gateway that many share from getting any change at all.
const maxCAs = 1 << 20

// trustBundleGroup is the API group of ClusterTrustBundles.
const trustBundleGroup = "certificates.k8s.io"

// bundleKey names an object that holds CA certificates. A ClusterTrustBundle has no namespace.
type bundleKey struct{ kind, namespace, name string }

func (k bundleKey) String() string {
	if k.namespace == "" {
		return k.kind + " " + k.name
	}
	return k.kind + " " + k.namespace + "/" + k.name
}

// bundle is the CA certificates of one object.
type bundle struct {
	object metav1.Object // nil when there is none
	pem    string
	err    error
}

// fault is something wrong in an object: where, the word for it, and how to mend it.
type fault struct {
	field   string
	reason  problem.Reason
	message string
}

func (f fault) with(field string) fault {
	f.field = field + f.field
	return f
}

// bundleRef reads the kind of a reference to CA certificates; namespace is where a namespaced object is looked for.
func bundleRef(group, kind, namespace, name string) (bundleKey, bool) {
	switch {
	case group == "" && (kind == "ConfigMap" || kind == "Secret"):
		return bundleKey{kind, namespace, name}, true
	case group == trustBundleGroup && kind == "ClusterTrustBundle":
		return bundleKey{kind, "", name}, true
	}
	return bundleKey{}, false
}

// bundle reads CA certificates, once for each version of the object that holds them. The reference must be one that may be followed.
func (p *pass) bundle(key bundleKey) *bundle {
	if key.kind != "ClusterTrustBundle" {
		p.want(key.kind, key.namespace, key.name)
	}
	object := p.bundleObject(key)
	b := p.bundles[key]
	if b == nil || b.object != object {
		b = &bundle{object: object}
		b.pem, b.err = readBundle(key, object)
		p.bundles[key] = b
	}
	return b
}

// bundleObject returns a nil interface where there is no object.
func (p *pass) bundleObject(key bundleKey) metav1.Object {
	name := types.NamespacedName{Namespace: key.namespace, Name: key.name}
	switch key.kind {
	case "ConfigMap":
		if o := p.st.ConfigMaps[name]; o != nil {
			return o
		}
	case "Secret":
		if o := p.st.Secrets[name]; o != nil {
			return o
		}
	case "ClusterTrustBundle":
		if o := p.st.ClusterTrustBundles[name]; o != nil {
			return o
		}
	}
	return nil
}

func readBundle(key bundleKey, object metav1.Object) (string, error) {
	if object == nil {
		if key.kind == "ClusterTrustBundle" {
			return "", fmt.Errorf("%s does not exist; create it or mend the name", key)
		}
		return "", fmt.Errorf("%s does not exist; create it with the CAs in %s", key, caKey)
	}
	in, text := caKey, ""
	switch o := object.(type) {
	case *corev1.ConfigMap:
		if text = o.Data[caKey]; text == "" {
			text = string(o.BinaryData[caKey])
		}
	case *corev1.Secret:
		text = string(secretValue(o, caKey))
	case *certificatesv1beta1.ClusterTrustBundle:
		in, text = "spec.trustBundle", o.Spec.TrustBundle
	}
	cas, err := certificatesOnly(text)
	if err != nil {
		return "", fmt.Errorf("%s holds no PEM certificate in %s; put the CA certificates there", key, in)
	}
	return cas, nil
}

// certificatesOnly returns the certificates of a PEM text and nothing else of it: no comment, and no key that somebody put beside them.
func certificatesOnly(text string) (string, error) {
	var out strings.Builder
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			continue // as the system's own roots are read: one that nobody can use vouches for nobody
		}
		block.Headers = nil
		out.Write(pem.EncodeToMemory(block))
	}
	if out.Len() == 0 {
		return "", errors.New("no certificate")
	}
	return out.String(), nil
}

// forgetBundles drops the bundles of objects that are gone, when they have become many.
func (p *pass) forgetBundles() {
	if len(p.bundles) <= 64 {
		return
	}
	for key := range p.bundles {
		if p.bundleObject(key) == nil {
			delete(p.bundles, key)
		}
	}
}

// trust is how a backend is authenticated, as BackendTLSPolicies and XBackends say it.
type trust struct {
	// tls is nil when nothing that the backend could show would be believed.
	tls *config.UpstreamTLS
	// invalid is what makes it unusable as a whole; its reason is "" when nothing does.
	invalid fault
	// unresolved are the references to CAs that lead nowhere. As long as one of several resolves, that one is trusted: what the others
	// would have vouched for is not.
	unresolved []fault
}

// readTrust reads spec.validation of an object in a namespace. Whatever is wrong, the result is never less than what was asked for: it is
// nothing then.
func (p *pass) readTrust(namespace string, v *gatewayv1.BackendTLSPolicyValidation) trust {
	var out trust
	made := &config.UpstreamTLS{ServerName: strings.ToLower(string(v.Hostname))}
	invalid := func(field, format string, args ...any) trust {
		out.invalid = fault{field, problem.Reason(gatewayv1.PolicyReasonInvalid), fmt.Sprintf(format, args...)}
		return out
	}
	if errs := validation.IsDNS1123Subdomain(made.ServerName); len(errs) > 0 {
		return invalid(".hostname", "hostname %q is no DNS name: %s", v.Hostname, strings.Join(errs, "; "))
	}
	for i, san := range v.SubjectAltNames {
		one := config.SubjectAltName{Type: string(san.Type)}
		switch san.Type {
		case gatewayv1.HostnameSubjectAltNameType:
			one.Value = strings.ToLower(string(san.Hostname))
		case gatewayv1.URISubjectAltNameType:
			one.Value = string(san.URI)
		}
		if one.Value == "" {
			return invalid(fmt.Sprintf(".subjectAltNames[%d]", i), "a subjectAltName of type %q has no value that can be verified; use type "+
				"Hostname with hostname, or URI with uri", san.Type)
		}
		made.SubjectAltNames = append(made.SubjectAltNames, one)
	}
	known := v.WellKnownCACertificates
	switch {
	case len(v.CACertificateRefs) > 0 && known != nil && *known != "":
		return invalid("", "caCertificateRefs and wellKnownCACertificates are both set; remove either")
	case len(v.CACertificateRefs) > 0:
		p.readTrusted(namespace, v.CACertificateRefs, made, &out)
	case known == nil || *known == "":
		return invalid("", "nothing says whom to trust; set caCertificateRefs, or wellKnownCACertificates to System")
	case *known != gatewayv1.WellKnownCACertificatesSystem:
		return invalid(".wellKnownCACertificates", "the CAs %q are not known; use System, or caCertificateRefs", *known)
	default:
		out.tls = made
	}
	return out
}

// errTooManyCAs is what is said of an object whose CAs exceed maxCAs.
const errTooManyCAs = "the CA certificates have more than 1 MiB together; name only those that sign for this"

// readTrusted follows references to CAs. They lead to the object's own namespace, or to what has none.
func (p *pass) readTrusted(namespace string, refs []gatewayv1.LocalObjectReference, made *config.UpstreamTLS, out *trust) {
	for i, ref := range refs {
		field := fmt.Sprintf(".caCertificateRefs[%d]", i)
		key, ok := bundleRef(string(ref.Group), string(ref.Kind), namespace, string(ref.Name))
		if !ok {
			out.unresolved = append(out.unresolved, fault{field, problem.InvalidKind, fmt.Sprintf("kind %q in group %q holds no CA certificates; "+
				"name a ConfigMap, a Secret or a ClusterTrustBundle", ref.Kind, ref.Group)})
			continue
		}
		if b := p.bundle(key); b.err != nil {
			out.unresolved = append(out.unresolved, fault{field, problem.InvalidCACertificateRef, b.err.Error()})
		} else {
			made.CAs += b.pem
		}
		if len(made.CAs) > maxCAs {
			out.invalid = fault{".caCertificateRefs", problem.Reason(gatewayv1.PolicyReasonInvalid), errTooManyCAs}
			return
		}
	}
	if made.CAs == "" {
		out.invalid = fault{".caCertificateRefs", problem.NoValidCACertificate,
			"none of the CA certificates can be used: " + out.unresolved[0].message}
		return
	}
	out.tls = made
}
