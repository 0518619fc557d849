package source

import (
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/controller/source/schema"
)

// DevelopmentAuthority is the annotation that asks for the key ca.crt of a ConfigMap to be filled in with the certificate of the
// development authority, when its value is "true".
const DevelopmentAuthority = "gatehouse.dev/development-ca"

// authorityKey is the key of a ConfigMap that holds certificates of authorities, as Gateway API's BackendTLSPolicy has it.
const authorityKey = "ca.crt"

// Issuer fills in development certificates. It returns the same bytes until a certificate must be renewed.
type Issuer interface {
	// Issue returns a certificate chain and key for DNS names and IP addresses, as PEM.
	Issue(names []string) (chain, key []byte, err error)
	// Authority returns the certificate that signs them, as PEM.
	Authority() ([]byte, error)
}

// develop returns the object with its development certificate filled in; any other object as it is.
func (f *Folder) develop(object metav1.Object) (metav1.Object, *fault) {
	switch o := object.(type) {
	case *corev1.Secret:
		names := o.Annotations[schema.DevelopmentCertificate]
		if names == "" || o.Type != corev1.SecretTypeTLS || len(o.Data[corev1.TLSCertKey]) > 0 || len(o.Data[corev1.TLSPrivateKeyKey]) > 0 {
			return object, nil
		}
		field := "metadata.annotations[" + schema.DevelopmentCertificate + "]"
		if f.issuer == nil {
			return nil, stateless(field)
		}
		chain, key, err := f.issuer.Issue(strings.Split(names, ","))
		if err != nil {
			return nil, &fault{field: field, reason: problem.SchemaInvalid, message: "development certificate: " + err.Error()}
		}
		filled := *o
		filled.Data = maps.Clone(o.Data)
		if filled.Data == nil {
			filled.Data = map[string][]byte{}
		}
		filled.Data[corev1.TLSCertKey], filled.Data[corev1.TLSPrivateKeyKey] = chain, key
		return &filled, nil
	case *corev1.ConfigMap:
		if o.Annotations[DevelopmentAuthority] != "true" || o.Data[authorityKey] != "" {
			return object, nil
		}
		field := "metadata.annotations[" + DevelopmentAuthority + "]"
		if f.issuer == nil {
			return nil, stateless(field)
		}
		authority, err := f.issuer.Authority()
		if err != nil {
			return nil, &fault{field: field, reason: problem.SchemaInvalid, message: "development authority: " + err.Error()}
		}
		filled := *o
		filled.Data = maps.Clone(o.Data)
		if filled.Data == nil {
			filled.Data = map[string]string{}
		}
		filled.Data[authorityKey] = string(authority)
		return &filled, nil
	}
	return object, nil
}

func stateless(field string) *fault {
	return &fault{field: field, reason: problem.SchemaInvalid, message: "development certificates need a folder to be kept in; " +
		"pass --state DIR, or put a certificate of your own into the object"}
}
