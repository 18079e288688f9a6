//! Settles relative type names the way protoc does. protox looks a relative name up among all packages it has loaded, so
//! that `config.core.v3.Address` written inside `envoy.extensions.…` lands in the package `envoy.extensions.config`, which
//! the file never imported. Here only what a file can see counts: itself, its imports, and what those import publicly.

use std::collections::HashSet;

use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};

/// Rewrites every type reference of `file` into its full name with a leading dot. A name nobody declares is left for protox
/// to complain about.
pub(crate) fn qualify<E>(
    file: &mut FileDescriptorProto,
    mut parse: impl FnMut(&str) -> Result<FileDescriptorProto, E>,
) -> Result<(), E> {
    let mut visible = HashSet::new();
    declare_file(file, &mut visible);
    let mut imports: Vec<String> = file.dependency.clone();
    let mut seen = HashSet::new();
    while let Some(import) = imports.pop() {
        if seen.insert(import.clone()) {
            let parsed = parse(&import)?;
            declare_file(&parsed, &mut visible);
            imports.extend(parsed.public_dependency.iter().map(|&at| parsed.dependency[at as usize].clone()));
        }
    }
    let package = scope_of(file.package());
    for message in &mut file.message_type {
        qualify_message(message, &package, &visible);
    }
    for field in &mut file.extension {
        qualify_field(field, &package, &visible);
    }
    for method in file.service.iter_mut().flat_map(|service| &mut service.method) {
        qualify_name(&mut method.input_type, &package, &visible);
        qualify_name(&mut method.output_type, &package, &visible);
    }
    Ok(())
}

fn qualify_message(message: &mut DescriptorProto, scope: &str, visible: &HashSet<String>) {
    let scope = format!("{scope}.{}", message.name());
    for field in message.field.iter_mut().chain(&mut message.extension) {
        qualify_field(field, &scope, visible);
    }
    for nested in &mut message.nested_type {
        qualify_message(nested, &scope, visible);
    }
}

fn qualify_field(field: &mut FieldDescriptorProto, scope: &str, visible: &HashSet<String>) {
    qualify_name(&mut field.type_name, scope, visible);
    qualify_name(&mut field.extendee, scope, visible);
}

/// Tries the innermost scope first.
fn qualify_name(name: &mut Option<String>, scope: &str, visible: &HashSet<String>) {
    let Some(relative) = name.as_deref().filter(|name| !name.starts_with('.')) else { return };
    let mut scope = scope;
    loop {
        let candidate = format!("{scope}.{relative}");
        if visible.contains(&candidate) {
            *name = Some(candidate);
            return;
        }
        match scope.rfind('.') {
            Some(dot) => scope = &scope[..dot],
            None => return,
        }
    }
}

fn declare_file(file: &FileDescriptorProto, visible: &mut HashSet<String>) {
    let package = scope_of(file.package());
    visible.extend(file.enum_type.iter().map(|declared| format!("{package}.{}", declared.name())));
    for message in &file.message_type {
        declare_message(message, &package, visible);
    }
}

fn declare_message(message: &DescriptorProto, scope: &str, visible: &mut HashSet<String>) {
    let name = format!("{scope}.{}", message.name());
    visible.extend(message.enum_type.iter().map(|declared| format!("{name}.{}", declared.name())));
    for nested in &message.nested_type {
        declare_message(nested, &name, visible);
    }
    visible.insert(name);
}

/// A package as a scope: with a leading dot, or empty for no package.
fn scope_of(package: &str) -> String {
    if package.is_empty() { String::new() } else { format!(".{package}") }
}
