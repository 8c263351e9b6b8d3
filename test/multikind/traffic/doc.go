// Package traffic holds the ledger: clients that make transfers between
// accounts as any business would, and write down what they were told.
//
// It is a black box: it finds the database through the global service's name,
// asks the hub nothing else, and knows nothing of roles or epochs but the
// PostgreSQL timeline that accepted a transfer. Each transfer has an id that is
// sent once and never again, so that a transfer found twice was made twice by
// the system and not by a client that tried again.
package traffic
