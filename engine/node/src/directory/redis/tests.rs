use super::stored::slot;

#[test]
fn slots_are_those_of_the_specification() {
    // CLUSTER KEYSLOT of redis-server 7.0.15.
    assert_eq!(slot("123456789"), 12739);
    assert_eq!(slot("foo"), 12182);
    assert_eq!(slot("a{foo}b"), 12182);
}
