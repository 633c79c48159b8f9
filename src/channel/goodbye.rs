//! How the end of a connection is told to the peer: close code and reason (protocol section 1).

use super::LinkDown;
use super::frame::close_code;

/// How an end is told to the peer.
pub(super) enum Goodbye {
    /// Close, then give the peer its second to answer.
    Wait(u16),
    /// Close, and go: an answer is not to be expected.
    Leave(u16),
    /// There is nobody to tell.
    None,
}

pub(super) fn goodbye(why: &LinkDown) -> Goodbye {
    match why {
        LinkDown::Hangup => Goodbye::Wait(close_code::NORMAL),
        LinkDown::RegisterTimeout(_) | LinkDown::NotRegisterAck(_) => Goodbye::Wait(close_code::POLICY),
        LinkDown::Undecodable(_) => Goodbye::Wait(close_code::INVALID),
        LinkDown::TooLarge { .. } | LinkDown::TooHeavy { .. } => Goodbye::Wait(close_code::TOO_BIG),
        LinkDown::Protocol(_) => Goodbye::Wait(close_code::PROTOCOL),
        LinkDown::NeighbourGone(_) => Goodbye::Wait(close_code::INTERNAL),
        LinkDown::Idle(_) | LinkDown::BarrierTimeout(_) | LinkDown::AckTimeout(_) => {
            Goodbye::Leave(close_code::AWAY)
        }
        LinkDown::WriteTimeout(_)
        | LinkDown::Broken(_)
        | LinkDown::ClosedByPeer { .. }
        | LinkDown::Dial(_) => Goodbye::None,
    }
}

/// What the server's operator reads. The agent's own troubles are not spelled out.
pub(super) fn close_reason(why: &LinkDown) -> String {
    match why {
        LinkDown::Hangup => "agent stops".into(),
        LinkDown::NeighbourGone(_) => "agent recovers from a fault".into(),
        LinkDown::RegisterTimeout(_)
        | LinkDown::NotRegisterAck(_)
        | LinkDown::Undecodable(_)
        | LinkDown::TooLarge { .. }
        | LinkDown::Protocol(_)
        | LinkDown::Idle(_)
        | LinkDown::BarrierTimeout(_)
        | LinkDown::AckTimeout(_)
        | LinkDown::TooHeavy { .. }
        | LinkDown::WriteTimeout(_)
        | LinkDown::Broken(_)
        | LinkDown::ClosedByPeer { .. }
        | LinkDown::Dial(_) => why.to_string(),
    }
}
