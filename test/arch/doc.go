// Package arch holds the code against the pages that describe it: the import tables and rules of docs/architecture.md and the words of
// docs/reference.md. It has tests only. Nothing here knows how the gateway works; when a test fails, either the code left its room
// or the page is out of date.
package arch
