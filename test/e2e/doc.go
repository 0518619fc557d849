// Package e2e holds tests that drive the built programs as a user does: start the binary on a folder, send requests, edit files, read
// what it prints.
package e2e
