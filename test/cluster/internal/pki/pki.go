// Package pki makes the keys, certificates and kubeconfigs that the parts of a test cluster know each other by. Every start of a cluster has
// an authority of its own, whose key is never written down.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	clientcmd "k8s.io/client-go/tools/clientcmd/api/v1"
	"sigs.k8s.io/yaml"
)

// How long certificates are valid for: longer than any cluster lives.
const validity = 365 * 24 * time.Hour

// Authority issues a cluster's certificates.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	folder      string
}

// File names in an authority's folder.
const authorityFile = "ca.crt"

// NewAuthority makes an authority that writes what it issues to a folder.
func NewAuthority(folder string) (*Authority, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "test cluster"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(validity),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a := &Authority{certificate: certificate, key: key, folder: folder}
	return a, a.write(authorityFile, "CERTIFICATE", der)
}

func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return new(big.Int).SetBytes(b[:])
}

func (a *Authority) write(name, kind string, der []byte) error {
	return os.WriteFile(filepath.Join(a.folder, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// Path returns where a file of the authority's folder lies.
func (a *Authority) Path(name string) string { return filepath.Join(a.folder, name) }

// CertificateFile is the file of the authority's own certificate.
func (a *Authority) CertificateFile() string { return a.Path(authorityFile) }

// Identity is whom a certificate names.
type Identity struct {
	// Name is the user or the server; Groups are the user's.
	Name   string
	Groups []string
	// Addresses and Hosts are what a server is reached by.
	Addresses []netip.Addr
	Hosts     []string
}

// Issue writes NAME.crt and NAME.key for an identity and returns their paths.
func (a *Authority) Issue(name string, id Identity) (certificate, key string, err error) {
	private, err := newKey(a, name)
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: id.Name, Organization: id.Groups},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(validity), DNSNames: id.Hosts,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, address := range id.Addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(address.AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &private.PublicKey, a.key)
	if err != nil {
		return "", "", err
	}
	return a.Path(name + ".crt"), a.Path(name + ".key"), a.write(name+".crt", "CERTIFICATE", der)
}

// SigningKey writes NAME.key and NAME.pub, a pair that no certificate names, and returns their paths.
func (a *Authority) SigningKey(name string) (private, public string, err error) {
	key, err := newKey(a, name)
	if err != nil {
		return "", "", err
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return "", "", err
	}
	return a.Path(name + ".key"), a.Path(name + ".pub"), a.write(name+".pub", "PUBLIC KEY", der)
}

func newKey(a *Authority, name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, a.write(name+".key", "EC PRIVATE KEY", der)
}

// Kubeconfig writes a kubeconfig by which an identity reaches the API server, and which needs no other file.
func (a *Authority) Kubeconfig(path, server string, id Identity) error {
	name := filepath.Base(path)
	certificateFile, keyFile, err := a.Issue(name, id)
	if err != nil {
		return err
	}
	var texts [3][]byte
	for i, file := range []string{a.CertificateFile(), certificateFile, keyFile} {
		if texts[i], err = os.ReadFile(file); err != nil {
			return err
		}
	}
	config := clientcmd.Config{
		APIVersion: "v1", Kind: "Config", CurrentContext: "gatehouse",
		Clusters:  []clientcmd.NamedCluster{{Name: "gatehouse", Cluster: clientcmd.Cluster{Server: server, CertificateAuthorityData: texts[0]}}},
		AuthInfos: []clientcmd.NamedAuthInfo{{Name: id.Name, AuthInfo: clientcmd.AuthInfo{ClientCertificateData: texts[1], ClientKeyData: texts[2]}}},
		Contexts:  []clientcmd.NamedContext{{Name: "gatehouse", Context: clientcmd.Context{Cluster: "gatehouse", AuthInfo: id.Name}}},
	}
	text, err := yaml.Marshal(config)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}
