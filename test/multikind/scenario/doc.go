// Package scenario plays disasters on a lab with the ledger running, and judges
// them by what clients were told and what the databases hold. It is a black
// box: the hub's public API, DNS and the databases' own addresses are all it
// touches.
package scenario
