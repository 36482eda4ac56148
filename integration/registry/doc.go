// Package registry has what package registries serve, as plain files: one package called greet, for each tool that installs packages.
//
// Limits: it is the least that today's clients ask for. Nothing is signed, and no index says more than the one package.
package registry
